"""The report of a run: numbers and pictures (a pipeline stage), then one page for people (after registration)."""

from flows.report.collect import collect

__all__ = ["collect"]
