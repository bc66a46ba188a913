"""This machine's cache folder, for files that can be fetched or computed again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flows.runtime.writable import is_writable

CACHE_VARIABLE = "SAMIF_CACHE"
"""Environment variable: the folder that replaces ~/.cache/samif."""


def cache_folder(part: str) -> Path:
    """`$SAMIF_CACHE/PART`, by default `~/.cache/samif/PART`, or a folder of this user for temporary files where the
    home folder is missing or read-only."""
    root = os.environ.get(CACHE_VARIABLE)
    if root:
        return Path(root).expanduser() / part
    try:
        own = Path.home() / ".cache" / "samif" / part
    except RuntimeError:  # neither HOME nor an entry in the password database
        return private_folder() / part
    return own if os.path.isdir(own) or is_writable(own) else private_folder() / part


def private_folder() -> Path:
    """A folder of this user, and of no other, among the temporary files; made where it is missing.

    Raises:
        OSError: no temporary file can be made.
    """
    path = Path(tempfile.gettempdir()) / f"samif-{os.geteuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.lstat()
    except FileExistsError:
        facts = path.lstat()
    if not path.is_symlink() and facts.st_uid == os.geteuid() and facts.st_mode & 0o077 == 0:
        return path
    return Path(tempfile.mkdtemp(prefix=f"samif-{os.geteuid()}-"))  # somebody else has taken the name
