"""`samif protocol`: the workspace's features, taken once and kept; scores, kept as they come; table, JSON and plots."""
