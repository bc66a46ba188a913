"""Versions in MLflow: registration, verification, promotion, and whose a line is."""
