"""Lock files: held by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from samif.errors import SamifError


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
