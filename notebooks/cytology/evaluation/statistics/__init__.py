"""Metrics, intervals and tests that respect patients and folds."""
