"""A size-limited folder that caches parts of the objects of a bucket.

Each object is a sparse file of its full size, into which parts are written at their offsets. There is no record of
which parts are present: readers verify checksums and fetch a part again if they do not match, so an incomplete write, a
killed process or several processes at once do no harm. Names contain the digest of the content, so no entry is ever
outdated; the least recently opened file is deleted first.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from contextlib import suppress
from pathlib import Path

from samif.errors import ServiceUnavailable

_CHECKS = 16
"""The folder's size is checked whenever a process has written this fraction of the limit."""


class Cache:
    """Picklable; several processes may use one folder. It stays below `limit` bytes plus a sixteenth for each process;
    deleted files that readers have open stay on the disk until they are closed."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._written = limit  # so that the first write checks

    def open(self, name: str, size: int) -> Parts:
        """The object of this name, which contains its digest; a new one has no parts yet.

        Raises:
            ServiceUnavailable: the folder cannot be written.
        """
        path = self.folder / name.replace("/", "-")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return Parts(self, path, size)
        except OSError as error:
            raise self.refusal(error) from error

    def wrote(self, count: int, path: Path) -> None:
        """Account for bytes written to the file at `path`; deletes other files above the limit."""
        self._written += count
        if self._written >= self.limit // _CHECKS:
            self._written = 0
            self.trim(self.limit, path)

    def trim(self, limit: int, keep: Path) -> None:
        """Delete files, least recently opened first, until at most `limit` bytes are left; `keep` is kept."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    found.append((status.st_mtime_ns, status.st_blocks * 512, entry.path))
        total = sum(used for _, used, _ in found)
        for _, used, path in sorted(found):
            if total <= limit:
                return
            if path != str(keep):
                with suppress(FileNotFoundError):
                    os.unlink(path)
                total -= used

    def refusal(self, error: OSError) -> ServiceUnavailable:
        """The error for a folder that cannot be written."""
        return ServiceUnavailable(
            f"parts of a bucket cannot be cached in {self.folder} ({error.strerror or error}); free space there, lower "
            "'embed.cache_gib' in params.yaml or set SAMIF_CACHE to another folder, then run again"
        )


class Parts:
    """A memory-mapped sparse file."""

    def __init__(self, cache: Cache, path: Path, size: int) -> None:
        self._cache, self._path = cache, path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, size)
        os.utime(self._descriptor)  # opened now
        self.map = mmap.mmap(self._descriptor, size)

    def write(self, start: int, content: bytes) -> None:
        """Write a part, so that it is in `map` and in the file for later readers.

        Raises:
            ServiceUnavailable: the disk is full even after all other files were deleted.
        """
        try:
            try:
                self._put(start, content)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._cache.trim(0, self._path)
                self._put(start, content)
            self._cache.wrote(len(content), self._path)
        except OSError as error:
            raise self._cache.refusal(error) from error

    def _put(self, start: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            # Through the file: writing a page of the map on a full disk would kill the process.
            count = os.pwrite(self._descriptor, rest, start)
            rest, start = rest[count:], start + count
