"""Running notebooks: the plan, what has changed, the record, the terminal."""
