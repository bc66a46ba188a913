"""Storage of the embedding store in a local or shared folder."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from flows.store.storage import Chunks, Entry, Span
from samif.errors import ObjectMissing, ServiceUnavailable
from samif.io import files

T = TypeVar("T")

_CHUNK = 4 << 20
_ABSENT = (FileNotFoundError, NotADirectoryError)


class Folder:
    """Storage in a folder, which need not exist yet."""

    parallel_calls = 1

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.location = str(self.root)

    def read(self, name: str) -> bytes | None:
        content = None
        with self._reading(), suppress(*_ABSENT):
            content = (self.root / name).read_bytes()
        return content

    def write(self, name: str, content: Chunks) -> None:
        self._put(name, content, files.publish)

    def create(self, name: str, content: bytes) -> bool:
        return self._put(name, [content], files.publish_new)

    def size(self, name: str) -> int | None:
        found = None
        with self._reading(), suppress(*_ABSENT):
            found = (self.root / name).stat().st_size
        return found

    def folders(self) -> list[str]:
        found: list[str] = []
        with self._reading(), suppress(*_ABSENT):
            found = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        return found

    def entries(self, folder: str) -> list[Entry]:
        found: list[Entry] = []
        with self._reading():
            found.extend(_walk(self.root / folder, folder, time.time()))
        return found

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(PermissionError, *_ABSENT):
                (self.root / name).unlink()

    def view(self, name: str, size: int) -> Mapped:
        try:
            return Mapped(self.root / name, size)
        except _ABSENT:
            raise ObjectMissing("its data is missing") from None
        except OSError as error:
            raise self._unreadable(error) from error

    def chunks(self, name: str) -> Iterator[bytes]:
        try:
            with (self.root / name).open("rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except _ABSENT:
            raise ObjectMissing("its data is missing") from None
        except OSError as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"the embedding store {self.location} cannot be read ({error.strerror or error}); "
            "check its permissions and its disk, then run again"
        )

    def _put(self, name: str, content: Chunks, publish: Callable[[Path, Path], T]) -> T:
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.staged(path.parent) as temporary:
                _write_chunks(temporary, content)
                return publish(temporary, path)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "free space, for instance by 'samif store gc'," if full else "correct its permissions"
            raise ServiceUnavailable(
                f"the embedding store {self.location} cannot be written ({error.strerror or error}); {remedy} "
                "and run 'samif run' again; committed shards are kept"
            ) from error


class Mapped:
    """A memory-mapped file; its pages are shared between processes."""

    def __init__(self, path: Path, size: int) -> None:
        with path.open("rb") as file:
            _check(os.fstat(file.fileno()).st_size, size)
            # Private: torch asks for writable memory, and a write to a private map never reaches the file.
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)

    @property
    def memory(self) -> memoryview:
        _check(self._map.size(), len(self._map))  # a page behind the end of the file would kill the process
        return memoryview(self._map)

    def fill(self, spans: Sequence[Span]) -> None:
        """Nothing to do: memory is the file."""


def _check(actual: int, size: int) -> None:
    if actual != size or not size:
        raise ObjectMissing(f"it has {actual} bytes instead of {size}")


def _write_chunks(path: Path, content: Chunks) -> None:
    with path.open("wb", buffering=0) as file:
        for chunk in content:
            rest = memoryview(chunk).cast("B")
            while rest:
                rest = rest[file.write(rest) :]


def _walk(path: Path, name: str, now: float) -> Iterator[Entry]:
    with suppress(*_ABSENT), os.scandir(path) as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path / entry.name, f"{name}/{entry.name}", now)
                continue
            with suppress(FileNotFoundError):
                status = entry.stat()
                yield Entry(f"{name}/{entry.name}", status.st_size, now - status.st_mtime)
