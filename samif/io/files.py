"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_TEMPORARY = ".tmp-"


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
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its place when the block ends, and is gone if it ends with an error. Its folder
    is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged(path.parent) as draft:
        yield draft
        publish(draft, path)


def commit(path: Path, content: bytes) -> None:
    """Write a small file: after a crash either all of it is there or nothing."""
    with written(path) as draft:
        draft.write_bytes(content)


def publish_new(temporary: Path, path: Path) -> bool:
    """The same unless the name is taken: then False. Of several writers one wins."""
    _sync(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        if path.exists():  # a file system without hard links: here the last writer may win, which does no harm
            return False
        os.replace(temporary, path)
    _sync(path.parent)
    return True


def is_temporary(name: str) -> bool:
    """Whether a name is one that `staged` gives."""
    return name.rpartition("/")[2].startswith(_TEMPORARY)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
