"""Masks: run-length coding, pooling of features under them, removal of duplicates."""
