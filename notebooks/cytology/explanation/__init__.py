"""Heatmaps, and whether they deserve belief."""
