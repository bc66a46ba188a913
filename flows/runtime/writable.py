"""Whether a folder can be written, without writing to it."""

from __future__ import annotations

import os
from pathlib import Path

from samif.errors import ConfigError


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder that exists, or that can be made; also False on a read-only file system."""
    existing = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), Path("/"))
    return os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK, effective_ids=True)


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder of results that cannot be written, before hours of work.

    Args:
        option: of the command line that names the folder.

    Raises:
        ConfigError: the folder cannot be written.
    """
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"{folder} is a file, not a folder; give another folder with {option}")
    if not is_writable(folder):
        raise ConfigError(
            f"nothing can be written to {folder} (read-only, or without the right to write); give another folder with "
            f"{option}"
        )
