"""Trained networks on new images, and as files for other programs."""
