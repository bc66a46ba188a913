"""This machine's cache folder, for files that can be fetched or computed again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "SAMIF_CACHE"
"""Environment variable: the folder that replaces ~/.cache/samif."""


def cache_folder(part: str) -> Path:
    """`$SAMIF_CACHE/PART`, by default `~/.cache/samif/PART`."""
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "samif") / part
