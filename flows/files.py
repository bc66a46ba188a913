"""Storage primitives of the embedding store on a local or shared folder; a bucket would need the same few."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_TEMPORARY = ".tmp-"
_ABANDONED_SECONDS = 3600.0


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary path in `folder`, removed at the end if it was not published."""
    temporary = folder / f"{_TEMPORARY}{uuid4().hex}"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Make a finished file durable and visible under its name, at once."""
    for target in (temporary, temporary.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if target == temporary:
            os.replace(temporary, path)


def commit(path: Path, content: bytes) -> None:
    """Write a small file: after a crash either all of it is there or nothing."""
    with staged(path.parent) as temporary:
        temporary.write_bytes(content)
        publish(temporary, path)


def folders(folder: Path) -> list[Path]:
    """Folders in a folder, by name; none if it does not exist."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def listing(folder: Path) -> dict[str, int]:
    """Size in bytes of each file of a folder; a file that vanishes meanwhile is left out."""
    sizes: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                sizes[entry.name] = entry.stat().st_size
            except FileNotFoundError:
                continue
    return dict(sorted(sizes.items()))


def size(path: Path) -> int:
    """Size in bytes; 0 if the file does not exist."""
    return path.stat().st_size if path.exists() else 0


def is_abandoned(path: Path) -> bool:
    """Whether this is an unfinished file whose writer must be dead."""
    return (
        path.name.startswith(_TEMPORARY) and path.exists() and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    )
