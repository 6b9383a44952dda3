"""Metrics, intervals and tests that know patients and folds."""
