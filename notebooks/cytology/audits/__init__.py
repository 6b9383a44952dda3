"""Where a result may be wrong: leaks, shifts, stains and sites left out, too few patients."""
