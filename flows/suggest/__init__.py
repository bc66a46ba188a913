"""Suggest which images to label next."""
