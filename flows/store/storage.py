"""What the embedding store needs of the place that it lies in: a folder or a bucket.

Names are relative to the store, their parts separated by "/". Failures that no rerun of the call would mend come as
SamifError with what to do about it; what is committed stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

Chunks = Sequence[bytes | memoryview]
"""The content of an object in pieces, so that large ones need not be put together in memory."""

Span = tuple[int, int]
"""First byte of a part of an object, and the byte after its last."""


class Lost(Exception):
    """An object is gone, or is not as long as it was; the message completes the sentence "the shard ..."."""


@dataclass(frozen=True)
class Entry:
    """One object in a listing; `age` in seconds since it was written, by the clock of the place."""

    name: str
    bytes: int
    age: float


class View(Protocol):
    """An object of a known size in memory, which may have holes until they are filled."""

    @property
    def memory(self) -> memoryview:
        """All bytes; parts that were never filled may hold anything, so they need a checksum.

        Raises:
            Lost: the object was cut short meanwhile.
        """

    def fill(self, spans: Sequence[Span]) -> None:
        """Read parts from the place itself, where memory holds less than that.

        Raises:
            Lost: the object is gone or shorter than it was.
            SamifError: it cannot be read for another reason.
        """


class Storage(Protocol):
    """Objects by name. Picklable: another process opens the same place."""

    location: str
    """For people."""

    lanes: int
    """How many calls at a time pay."""

    def read(self, name: str) -> bytes | None:
        """A small object; None if there is none."""

    def write(self, name: str, content: Chunks) -> None:
        """Put an object, durably; after a crash all of it is there or what was there before."""

    def create(self, name: str, content: bytes) -> bool:
        """The same unless there is one of that name: then False, and nothing changes. One of several writers wins."""

    def size(self, name: str) -> int | None:
        """Bytes of an object; None if there is none."""

    def folders(self) -> list[str]:
        """First parts of all names, ascending."""

    def entries(self, folder: str) -> list[Entry]:
        """Every object in a folder and below, unfinished ones included; one that vanishes meanwhile is left out."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects in this order; one that is not there, or that we may not remove, is passed over."""

    def view(self, name: str, size: int) -> View:
        """Open an object of `size` bytes for reading by parts.

        Raises:
            Lost: there is none, or it has another size (a bucket says so only at the first `fill`).
        """

    def chunks(self, name: str) -> Iterable[bytes]:
        """The whole of a large object, once, past any cache. Lost if there is none."""
