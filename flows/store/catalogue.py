"""Snapshot of a namespace: its shards, the place of each key, and damage that names and sizes reveal.

It needs one listing. Manifests are read only for shards that the index lacks; if these are many, a new index is
written.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from flows.store.index import Index, Words, unpack
from flows.store.shard import Damage, ShardManifest, broken, data_name, manifest_name, read_manifest
from flows.store.storage import Entry, Storage
from samif.errors import ObjectMissing, ServiceUnavailable
from samif.io.files import is_temporary

logger = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")

Place = tuple[str, int]
"""Shard and row."""

SETTLED_SECONDS = 3600.0
"""A writer that has not finished after this time is taken for dead."""
_UNINDEXED = 64
"""A new index is written when more shards than this, plus a sixteenth of the indexed ones, are not in the index."""
_INDEX = re.compile(r"index-([0-9a-f]{16})\.safetensors")
_SHARD = re.compile(r"[0-9a-f]{2}/([0-9a-f]{64})(\.json|\.[0-9a-f]{16}\.safetensors)")


class Catalogue:
    """A snapshot of a namespace. It holds no manifests; an index on the disk is memory-mapped."""

    def __init__(self, storage: Storage, folder: str) -> None:
        entries = {entry.name: entry for entry in storage.entries(folder)}
        self.folder = folder
        self.bytes = sum(entry.bytes for entry in entries.values())
        self.damages: list[Damage] = []
        """Damage that names and sizes reveal."""
        self.orphans: list[str] = []
        """Names of data without manifest: a writer is at work, or died; the next run commits or deletes it."""
        self._levels: list[tuple[Index, npt.NDArray[np.bool_]]] = []
        owned: set[str] = set()
        index = _load(storage, folder, entries)
        if index is not None:
            exists = _existing(index, folder, entries)
            self._levels.append((index, exists))
            owned.update(name for shard, data in _shards(index, exists) for name in _names(folder, shard, data))
        fresh = Index.of(self._committed(storage, folder, entries, owned))
        if len(fresh.shards):
            self._add(storage, folder, fresh, entries)
        self._leftovers(storage, entries, owned)

    def shards(self) -> list[str]:
        """Names of all committed shards, ascending."""
        return sorted(shard for index, exists in self._levels for shard, _ in _shards(index, exists))

    def names(self, shards: set[str]) -> set[str]:
        """Names of the manifests and data of some of the shards."""
        return {
            name
            for index, exists in self._levels
            for shard, data in _shards(index, exists)
            if shard in shards
            for name in _names(self.folder, shard, data)
        }

    def count(self) -> int:
        """Number of keys; one that is in two shards counts once."""
        keys = [np.stack([index.high, index.low], 1)[exists[index.shard_numbers()]] for index, exists in self._levels]
        return len(np.unique(np.concatenate(keys), axis=0)) if keys else 0

    def find(self, wanted: Words) -> list[Place | None]:
        """Place of each key, None where no committed shard holds it. (n, 2) keys."""
        found: list[Place | None] = [None] * len(wanted)
        for index, exists in self._levels:
            places = index.find(wanted, exists)
            for at in np.flatnonzero(places >= 0):
                shard, row = unpack(int(places[at]))
                found[at] = (index.shards[shard].tobytes().hex(), row)
        return found

    def holds(self, wanted: Words) -> npt.NDArray[np.bool_]:
        """Whether a committed shard holds each key. (n, 2) keys to (n,)."""
        held = np.zeros(len(wanted), np.bool_)
        for index, exists in self._levels:
            held |= index.find(wanted, exists) >= 0
        return held

    def _committed(
        self, storage: Storage, folder: str, entries: Mapping[str, Entry], owned: set[str]
    ) -> Iterator[tuple[ShardManifest, int]]:
        """Manifests that are not owned yet, with their sizes; shards without an intact one are added to the damages."""
        names = (name[len(folder) + 1 :] for name in entries if name not in owned)
        shards = [match[1] for name in names if (match := _SHARD.fullmatch(name)) and match[2] == ".json"]
        for found in call_in_parallel(storage, lambda shard: read_manifest(storage, folder, shard), shards):
            if isinstance(found, Damage):
                self.damages.append(found)
                continue
            manifest, _ = found
            names_of_it = _names(folder, manifest.shard, manifest.sha256)
            owned.update(names_of_it)
            data = entries.get(names_of_it[1])
            if data is not None and data.bytes == manifest.bytes:
                yield found
            else:
                reason = f"it has {data.bytes if data else 0} bytes instead of {manifest.bytes}"
                self.damages.append(broken(storage, folder, manifest, reason))

    def _leftovers(self, storage: Storage, entries: Mapping[str, Entry], owned: set[str]) -> None:
        for name in sorted(entries.keys() - owned):
            match = _SHARD.fullmatch(name[len(self.folder) + 1 :])
            if match and match[2] != ".json":
                self.orphans.append(name)
            elif is_temporary(name) and entries[name].age > SETTLED_SECONDS:
                self.damages.append(Damage(name.rpartition("/")[2], "its writer did not finish", (name,), storage))

    def _add(self, storage: Storage, folder: str, fresh: Index, entries: Mapping[str, Entry]) -> None:
        covered = int(self._levels[0][1].sum()) if self._levels else 0
        if len(fresh.shards) < _UNINDEXED + covered // 16:
            self._levels.append((fresh, np.ones(len(fresh.shards), np.bool_)))
            return
        index = self._levels[0][0].merged(self._levels[0][1], fresh) if self._levels else fresh
        self._levels = [(index, np.ones(len(index.shards), np.bool_))]
        content = index.bytes()
        name = f"{folder}/index-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        try:
            storage.write(name, [content])
            storage.delete(old for old in _indexes(folder, entries) if old != name)
        except ServiceUnavailable:  # a read-only store has no index: slower, but correct
            logger.info("no index was written to %s", storage.location, exc_info=True)


def call_in_parallel(storage: Storage, call: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """Results of calls to the storage, in order; as many run at a time as are worthwhile."""
    if storage.parallel_calls == 1 or len(items) < 2:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(storage.parallel_calls, "store") as pool:
        yield from pool.map(call, items)


def _load(storage: Storage, folder: str, entries: Mapping[str, Entry]) -> Index | None:
    """The newest intact index; damaged ones are deleted."""
    for name, sha256 in _indexes(folder, entries).items():
        with contextlib.suppress(ObjectMissing):
            view = storage.view(name, entries[name].bytes)
            index = Index.parse(view.memory, sha256)
            if index is None:
                view.fill([(0, entries[name].bytes)])
                index = Index.parse(view.memory, sha256)
            if index is not None:
                return index
            storage.delete([name])
    return None


def _indexes(folder: str, entries: Mapping[str, Entry]) -> dict[str, str]:
    """Names of indexes, the newest first, and the start of the digest of each."""
    found = [
        (e.age, e.name, match[1]) for e in entries.values() if (match := _INDEX.fullmatch(e.name[len(folder) + 1 :]))
    ]
    return {name: sha256 for _, name, sha256 in sorted(found)}


def _existing(index: Index, folder: str, entries: Mapping[str, Entry]) -> npt.NDArray[np.bool_]:
    """Which shards of an index exist, by the sizes of their data and manifests."""
    sizes = index.sizes.tolist()
    exists = []
    for (shard, data), expected in zip(_shards(index, None), sizes, strict=True):
        manifest, content = (entries.get(name) for name in _names(folder, shard, data))
        exists.append(manifest is not None and content is not None and [content.bytes, manifest.bytes] == expected)
    return np.array(exists, np.bool_)


def _shards(index: Index, exists: npt.NDArray[np.bool_] | None) -> Iterator[tuple[str, str]]:
    """Name and start of the data's digest of each shard (that exists)."""
    shards, data = index.shards.tobytes().hex(), index.data.tobytes().hex()
    for number in range(len(index.shards)) if exists is None else np.flatnonzero(exists).tolist():
        yield shards[64 * number : 64 * number + 64], data[16 * number : 16 * number + 16]


def _names(folder: str, shard: str, sha256: str) -> tuple[str, str]:
    return manifest_name(folder, shard), data_name(folder, shard, sha256)
