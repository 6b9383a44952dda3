"""One smear, drawn: its layers, its cells, its photograph."""
