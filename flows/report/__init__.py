"""The report of a run: numbers and images (a pipeline stage), then one page for people (after registration)."""
