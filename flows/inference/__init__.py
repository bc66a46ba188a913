"""Prediction with a registered version or a model folder."""
