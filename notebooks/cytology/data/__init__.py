"""Images before any network sees them: inspection, copies, the manifest, augmentation, splits."""
