"""Lock files, each held by one process at a time."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.runtime.system_errors import system_error
from samif.errors import ConfigError, SamifError


@contextmanager
def held(path: Path, busy: SamifError, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock file, or raise `busy`. The kernel releases it when the process ends, however it ends.

    Args:
        seconds: how long to wait for the lock.

    Raises:
        busy: another process holds the lock.
        ConfigError: the file's folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=seconds)
        lock.acquire()
    except Timeout:
        raise busy from None
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) and (known := system_error(error)) is not None:
            raise known from None
        raise ConfigError(f"cannot write to {path.parent}: {error.strerror}; check its permissions") from None
    try:
        yield
    finally:
        lock.release()
