"""SHA-256 of many files, with a cache, so that a file is read again only when it may have changed."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from stat import S_ISREG

from samif.errors import DataError
from samif.io.hashing import file_sha256

logger = logging.getLogger(__name__)

GRANULARITY_NS = 2 * 10**9
"""The coarsest timestamps of a file system in use (2 s, FAT). A file that changed less than this before it was read can
change once more without a new timestamp, so its digest is not cached."""
_READERS = 4
_LOCK_SECONDS = 5.0
_TABLE = "create table if not exists files (path blob primary key, stat text not null, sha256 text not null)"


def file_digests(paths: Iterable[Path], cache: Path) -> dict[Path, str]:
    """SHA-256 of each file, as 64 hexadecimal digits.

    A digest is taken from the cache if path, size, modification time, change time and inode are those of the file that
    was read. Files that no longer exist are left out of the result and of the cache.

    Args:
        paths: absolute.
        cache: SQLite file, made where it is missing. If it cannot be used, a warning is logged and every file is read.

    Raises:
        DataError: a file cannot be read.
    """
    stats = {path: stat for path in paths if (stat := _stat(path)) is not None}
    cached = _load(cache)
    known = {
        path: entry[1]
        for path, stat in stats.items()
        if (entry := cached.get(os.fsencode(path))) is not None and entry[0] == stat
    }
    started = time.time_ns()
    unknown = [path for path in stats if path not in known]
    with ThreadPoolExecutor(_READERS) as pool:
        read = {path: sha256 for path, sha256 in zip(unknown, pool.map(_sha256, unknown), strict=True) if sha256}
    if unknown:
        logger.info("read %d of %d data files, the others have not changed", len(unknown), len(stats))
    settled = [path for path in read if _is_settled(path, stats[path], started)]
    rows = [(os.fsencode(path), stats[path], read[path]) for path in settled]
    gone = cached.keys() - {os.fsencode(path) for path in known} - {row[0] for row in rows}
    if rows or gone:
        _store(cache, rows, gone)
    return known | read


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.exists() else None


def _stat(path: Path) -> str | None:
    """What changes when a file changes; none where there is no regular file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    if not S_ISREG(found.st_mode):
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _is_settled(path: Path, stat: str, started: int) -> bool:
    """Whether a change after reading would show in the file's status."""
    return all(int(at) < started - GRANULARITY_NS for at in stat.split()[1:3]) and _stat(path) == stat


def _load(cache: Path) -> dict[bytes, tuple[str, str]]:
    """Path -> (status, SHA-256)."""
    if not cache.exists():
        return {}
    try:
        with closing(sqlite3.connect(cache, timeout=_LOCK_SECONDS)) as database:
            return {path: (stat, sha256) for path, stat, sha256 in database.execute("select * from files")}
    except sqlite3.Error as error:
        logger.warning("every data file is read: %s cannot be used (%s); remove it", cache, error)
        return {}


def _store(cache: Path, rows: Iterable[tuple[bytes, str, str]], gone: Iterable[bytes]) -> None:
    try:
        cache.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(cache, timeout=_LOCK_SECONDS)) as database, database:
            database.execute(_TABLE)
            database.executemany("delete from files where path = ?", [(path,) for path in gone])
            database.executemany("insert or replace into files values (?, ?, ?)", rows)
    except (sqlite3.Error, OSError) as error:
        logger.info("data files will be read again: %s cannot be written (%s)", cache, error)
