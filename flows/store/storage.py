"""Interface of the storage of an embedding store: a folder or a bucket.

Names are relative to the store, their parts separated by "/". A call that fails raises ServiceUnavailable with what to
do about it; committed shards are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

Chunks = Sequence[bytes | memoryview]
"""The content of an object in pieces, so that large ones need not be joined in memory."""

Span = tuple[int, int]
"""First byte of a part of an object, and the byte after its last."""


@dataclass(frozen=True)
class Entry:
    """One object in a listing; `age` in seconds since it was written, by the clock of the storage."""

    name: str
    bytes: int
    age: float


class View(Protocol):
    """An object of a known size, mapped to memory; parts may be unset until `fill` reads them."""

    @property
    def memory(self) -> memoryview:
        """All bytes; unset parts may hold anything, so readers compare checksums.

        Raises:
            ObjectMissing: the object has been truncated.
        """

    def fill(self, spans: Sequence[Span]) -> None:
        """Read parts from the storage, if memory does not hold them.

        Raises:
            ObjectMissing: the object does not exist or has another size.
            ServiceUnavailable: it cannot be read for another reason.
        """


class Storage(Protocol):
    """Objects by name. Picklable: another process opens the same storage.

    The messages of ObjectMissing complete the sentence "the shard ...".
    """

    location: str
    """Folder or address, for messages."""

    parallel_calls: int
    """How many calls at a time are worthwhile."""

    def read(self, name: str) -> bytes | None:
        """A small object; None if there is none."""

    def write(self, name: str, content: Chunks) -> None:
        """Write an object durably; after a crash there is either the new object or the old one."""

    def create(self, name: str, content: bytes) -> bool:
        """Write an object unless the name exists: then False, and nothing changes. One of several writers succeeds."""

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if there is none."""

    def folders(self) -> list[str]:
        """First parts of all names, ascending."""

    def entries(self, folder: str) -> list[Entry]:
        """Every object in a folder and below, unfinished ones included; one that is deleted meanwhile is left out."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects in this order; missing ones and ones that may not be deleted are skipped."""

    def view(self, name: str, size: int) -> View:
        """Open an object of `size` bytes for reading by parts.

        Raises:
            ObjectMissing: it does not exist or has another size (in a bucket raised only by the first `fill`).
        """

    def chunks(self, name: str) -> Iterable[bytes]:
        """The content of a large object, not cached. Raises ObjectMissing."""
