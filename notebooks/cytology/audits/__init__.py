"""How a result may mislead: leaks, shifts, stains and sites left out, too few patients."""
