"""A run on a Ray cluster elsewhere: what is sent, how it gets there once, and what comes back (docs/adr/0015)."""
