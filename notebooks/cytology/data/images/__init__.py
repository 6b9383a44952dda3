"""Reading one image file: whether it is an image, and its pixels as 8-bit RGB."""
