"""Where images come from: folders, published sets, the drawn sample; whose they are."""
