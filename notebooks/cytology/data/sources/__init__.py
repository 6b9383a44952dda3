"""Sources of images: folders, published sets, the drawn sample; and their patients."""
