"""Holding a workspace alone, for a run or an edit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.layout import Layout
from samif.errors import SamifError


class BusyError(SamifError):
    """Another command holds the workspace."""


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the workspace alone: a run and an edit of params.yaml must not meet.

    Raises:
        SamifError: `root` is no workspace, or (BusyError) another command holds it.
    """
    layout = Layout(root)
    if not layout.params.exists():
        raise SamifError(f"{root} is not a workspace (no params.yaml); run 'samif init' to make one")
    busy = BusyError(f"another samif command is at work in {root}; try again when it has ended")
    with held(layout.state / "lock", busy):
        yield


@contextmanager
def held(path: Path, busy: SamifError) -> Iterator[None]:
    """Hold a lock file, or raise `busy` at once. Released by the kernel on any death.

    Raises:
        SamifError: `busy`, or the file's folder cannot be written in.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        raise busy from None
    except OSError as error:
        raise SamifError(f"cannot write in {path.parent}: {error.strerror}; check its permissions") from None
    try:
        yield
    finally:
        lock.release()
