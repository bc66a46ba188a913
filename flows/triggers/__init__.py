"""Runs that something outside sets off: signed events by HTTP, queued on disk, carried out one at a time."""
