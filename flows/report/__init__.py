"""The report of a run: numbers and pictures (a pipeline stage), then one page for people (after registration)."""
