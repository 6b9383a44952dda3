"""One image file: whether it is one, and its pixels as 8-bit RGB."""
