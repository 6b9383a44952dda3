"""What predictions are worth: comparison, operating points, caveats, the summary in words."""
