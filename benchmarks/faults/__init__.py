"""Break things on purpose, and record what happens."""
