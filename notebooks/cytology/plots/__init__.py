"""Figures: tables in, a Matplotlib figure out; a file for each family of notebooks."""
