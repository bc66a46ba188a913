"""A bounded folder of parts of objects that lie elsewhere.

Each object is a sparse file of its full size, into which parts are written where they belong. There is no record of
which parts are there: readers check what they find against their checksums and ask for it again where it fails, so
that a torn write, a killed process or several of them at once do no harm. Names bear the content, so nothing in here
is ever outdated; what was opened longest ago goes first.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from contextlib import suppress
from pathlib import Path

from samif.errors import SamifError

_LOOKS = 16
"""The folder is looked over when a process has written this part of the limit."""


class Cache:
    """Picklable; several processes may use one folder. They keep it within `limit` bytes and a sixteenth for each of
    them; what readers have open of dropped files stays on the disk until they close it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._written = limit  # so that the first write looks

    def open(self, name: str, size: int) -> Parts:
        """The object of this name, which bears its content; all holes at first.

        Raises:
            SamifError: the folder cannot be written.
        """
        path = self.folder / name.replace("/", "-")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return Parts(self, path, size)
        except OSError as error:
            raise self.refusal(error) from error

    def wrote(self, count: int, path: Path) -> None:
        """Account for bytes written into the file at `path`; drops others where they are too many."""
        self._written += count
        if self._written >= self.limit // _LOOKS:
            self._written = 0
            self.trim(self.limit, path)

    def trim(self, limit: int, keep: Path) -> None:
        """Drop files, the one opened longest ago first, until at most `limit` bytes are left; `keep` stays."""
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

    def refusal(self, error: OSError) -> SamifError:
        """What to say when the folder cannot be written."""
        return SamifError(
            f"parts of a bucket cannot be kept in {self.folder} ({error.strerror or error}); make room there, lower "
            "'embed.cache_gib' in params.yaml or set SAMIF_CACHE to another folder, then rerun"
        )


class Parts:
    """A sparse file in memory."""

    def __init__(self, cache: Cache, path: Path, size: int) -> None:
        self._cache, self._path = cache, path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, size)
        os.utime(self._descriptor)  # opened now
        self.map = mmap.mmap(self._descriptor, size)

    def write(self, start: int, content: bytes) -> None:
        """Keep a part, so that it is in `map` and there for the next who opens the object.

        Raises:
            SamifError: there is no room, even when everything else has been dropped.
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
            # Through the file: a page of the map that finds no room on the disk would end the process.
            count = os.pwrite(self._descriptor, rest, start)
            rest, start = rest[count:], start + count
