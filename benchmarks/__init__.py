"""Side-by-side measurements: ours and what a user would use instead, alternately in one process."""
