"""Heatmaps, and whether they can be trusted."""
