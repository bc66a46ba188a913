"""Runs of a workspace: reproduction by DVC, its remote, what would run and why."""
