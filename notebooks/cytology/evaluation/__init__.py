"""Evaluating predictions: comparison, operating points, caveats, the summary in words."""
