"""Errors of a classifier on the validation images, and accepted ones as a session."""
