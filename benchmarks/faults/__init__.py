"""Break things on purpose, and write down what happened."""
