"""The files that stages leave for each other."""
