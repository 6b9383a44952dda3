"""Running notebooks: the plan, changes since the last run, the record, the terminal."""
