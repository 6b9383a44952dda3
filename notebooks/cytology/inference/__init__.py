"""Trained networks applied to new images, and exported for other programs."""
