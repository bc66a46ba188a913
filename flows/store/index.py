"""The index of a namespace: which shard and row holds a key, for millions of keys.

It only accelerates look-ups and may be deleted at any time: shards that it lacks are read from their manifests, missing
or changed shards are skipped, and opening a shard verifies its manifest. A shard's name is the hash of its keys, so an
entry of the index cannot be outdated.

One safetensors file whose arrays are read in place; N keys, S shards:

    high, low  (N,) uint64    first and second eight bytes of each key; ascending by `high`, then by shard
    place      (N,) uint64    shard * 2**32 + row
    shards     (S, 32) uint8  names of the shards, ascending
    data       (S, 8) uint8   first eight bytes of the SHA-256 of their data
    sizes      (S, 2) uint64  bytes of their data and of their manifests
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.store.shard import ShardManifest

Words = npt.NDArray[np.uint64]
"""(n, 2) the first sixteen bytes of n keys."""

_KEY_BYTES = 16
_ROW_BITS = np.uint64(32)
_ARRAYS = ("high", "low", "place", "shards", "data", "sizes")


class Index:
    """Arrays as above, in memory or in a mapped file."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.high, self.low, self.place, self.shards, self.data, self.sizes = (arrays[name] for name in _ARRAYS)

    @classmethod
    def parse(cls, memory: memoryview, sha256: str) -> Index | None:
        """The index in a file whose digest starts with `sha256`; None if the digest does not match."""
        if not hashlib.sha256(memory).hexdigest().startswith(sha256):
            return None
        start = 8 + int.from_bytes(memory[:8], "little")
        header = json.loads(bytes(memory[8:start]))
        arrays = {}
        for name in _ARRAYS:
            dtype = np.dtype({"U64": np.uint64, "U8": np.uint8}[header[name]["dtype"]])
            shape, (first, end) = header[name]["shape"], header[name]["data_offsets"]
            arrays[name] = np.frombuffer(memory, dtype, (end - first) // dtype.itemsize, start + first).reshape(shape)
        return cls(arrays)

    @classmethod
    def of(cls, manifests: Iterable[tuple[ShardManifest, int]]) -> Index:
        """An index of shards from their manifests and the manifests' sizes in bytes; holds one manifest at a time."""
        keys, counts, shards, data, sizes = [np.zeros((0, 2), np.uint64)], [], [], [], []
        for manifest, size in manifests:
            keys.append(words([bytes.fromhex(key[: 2 * _KEY_BYTES]) for key in manifest.keys]))
            counts.append(len(manifest.keys))
            shards.append(bytes.fromhex(manifest.shard))
            data.append(bytes.fromhex(manifest.sha256[:16]))
            sizes.append((manifest.bytes, size))
        joined = np.concatenate(keys)
        rows = np.concatenate([np.arange(count, dtype=np.uint64) for count in (0, *counts)])
        numbers = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
        return cls(
            {
                "high": joined[:, 0],
                "low": joined[:, 1],
                "place": (numbers << _ROW_BITS) | rows,
                "shards": np.frombuffer(b"".join(shards), np.uint8).reshape(-1, 32),
                "data": np.frombuffer(b"".join(data), np.uint8).reshape(-1, 8),
                "sizes": np.array(sizes, np.uint64).reshape(-1, 2),
            }
        )._sorted()

    def merged(self, exists: npt.NDArray[np.bool_], other: Index) -> Index:
        """One index of those shards of this one that exist and of the shards of another."""
        kept = exists[self.place >> _ROW_BITS]
        renumbered = np.cumsum(exists, dtype=np.uint64) - np.uint64(1)
        place = self.place[kept]
        place = (renumbered[place >> _ROW_BITS] << _ROW_BITS) | (place & np.uint64(0xFFFFFFFF))
        shifted = other.place + (np.uint64(exists.sum()) << _ROW_BITS)
        return Index(
            {
                "high": np.concatenate([self.high[kept], other.high]),
                "low": np.concatenate([self.low[kept], other.low]),
                "place": np.concatenate([place, shifted]),
                **{
                    name: np.concatenate([getattr(self, name)[exists], getattr(other, name)])
                    for name in ("shards", "data", "sizes")
                },
            }
        )._sorted()

    def _sorted(self) -> Index:
        order = np.argsort(np.ascontiguousarray(self.shards).view("S32")[:, 0], kind="stable")
        rank = np.empty(len(order), np.uint64)
        rank[order] = np.arange(len(order), dtype=np.uint64)
        place = (rank[self.place >> _ROW_BITS] << _ROW_BITS) | (self.place & np.uint64(0xFFFFFFFF))
        by_key = np.lexsort((place, self.high))
        return Index(
            {
                "high": self.high[by_key],
                "low": self.low[by_key],
                "place": place[by_key],
                **{name: getattr(self, name)[order] for name in ("shards", "data", "sizes")},
            }
        )

    def bytes(self) -> bytes:
        """The file."""
        from safetensors.numpy import save

        return save({name: getattr(self, name) for name in _ARRAYS})

    def shard_numbers(self) -> npt.NDArray[np.int64]:
        """(N,) number of each key's shard."""
        return (self.place >> _ROW_BITS).astype(np.int64)

    def find(self, wanted: Words, exists: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Place of each key in a shard that exists; -1 where there is none.

        Args:
            wanted: (q, 2) keys.
            exists: (S,) which shards exist.
        """
        places = np.full(len(wanted), -1, np.int64)
        todo = np.argsort(wanted[:, 0])  # neighbours touch the same pages
        at = np.searchsorted(self.high, wanted[todo, 0])
        while todo.size:
            inside = at < len(self.high)
            todo, at = todo[inside], at[inside]
            same = self.high[at] == wanted[todo, 0]
            todo, at = todo[same], at[same]
            place = self.place[at]
            hit = (self.low[at] == wanted[todo, 1]) & exists[place >> _ROW_BITS]
            places[todo[hit]] = place[hit].astype(np.int64)
            todo, at = todo[~hit], at[~hit] + 1  # a key may be in several shards
        return places


def words(keys: Sequence[bytes]) -> Words:
    """(n, 2) the first sixteen bytes of n keys."""
    joined = b"".join(key[:_KEY_BYTES] for key in keys)
    return np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)


def unpack(place: int) -> tuple[int, int]:
    """Shard and row of a place."""
    return place >> 32, place & 0xFFFFFFFF
