"""Drawing one smear: its layers, its cells, its photograph."""
