"""Settings of every test."""

from __future__ import annotations

from hypothesis import settings

# how long an example takes says something about the machine, nothing about the code
settings.register_profile("samif", deadline=None)
settings.load_profile("samif")
