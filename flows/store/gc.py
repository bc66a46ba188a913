"""Statistics of a store, and the objects in it that no manifest needs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.image_keys import CHUNK, ImageKeys
from flows.store.catalogue import SETTLED_SECONDS, Catalogue
from flows.store.namespace_key import NamespaceKey, read_key
from flows.store.storage import Entry, Storage

_NAMESPACE = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class NamespaceStat:
    """Statistics of a namespace; `encoder`, `preprocessing` and `dtype` are None where its key is missing."""

    namespace: str
    encoder: str | None
    preprocessing: str | None
    dtype: str | None
    shards: int
    images: int
    bytes: int
    damages: tuple[str, ...]


@dataclass(frozen=True)
class Garbage:
    """Objects of a namespace that no manifest needs; deleting `names` in this order may be interrupted at any time."""

    namespace: str
    encoder: str | None
    why: str
    shards: int
    bytes: int
    too_young: int
    """Objects younger than an hour, which are kept because a running writer may need them."""
    names: tuple[str, ...]


def namespaces(storage: Storage) -> list[str]:
    """Namespaces of a store; folders with other names do not belong to it."""
    return [name for name in storage.folders() if _NAMESPACE.fullmatch(name)]


def stat(storage: Storage) -> Iterator[NamespaceStat]:
    """Statistics of each namespace that is not empty; nothing is hashed."""
    for folder in namespaces(storage):
        catalogue = Catalogue(storage, folder)
        if catalogue.bytes:
            key = read_key(storage, folder)
            yield NamespaceStat(
                namespace=folder,
                encoder=key.encoder if key else None,
                preprocessing=key.preprocessing if key else None,
                dtype=key.dtype if key else None,
                shards=len(catalogue.shards()),
                images=catalogue.count(),
                bytes=catalogue.bytes,
                damages=tuple(f"{damage.shard}: {damage.reason}" for damage in catalogue.damages),
            )


def garbage(storage: Storage, kept: Sequence[EmbeddingManifest]) -> Iterator[Garbage]:
    """Objects that none of the manifests needs and that are older than an hour; nothing is deleted.

    In a namespace that a manifest names, these are the shards that hold none of its images, and files that belong to no
    shard.
    """
    images: dict[str, list[ImageKeys]] = defaultdict(list)
    keys: dict[str, NamespaceKey] = {}
    for manifest in kept:
        key = NamespaceKey.of(manifest)
        keys[key.folder] = key
        images[key.folder].append(manifest.images)
    for folder in namespaces(storage):
        if folder in keys:
            catalogue, shards = Catalogue(storage, folder), set[str]()
            for some in images[folder]:
                for start in range(0, len(some), CHUNK):
                    places = catalogue.find(keys[folder].words(some[start : start + CHUNK]))
                    shards.update(place[0] for place in places if place is not None)
            needed = catalogue.names(shards)
            found = _unneeded(storage, folder, "no image of these manifests is in them", needed)
        else:
            found = _unneeded(storage, folder, "none of these manifests names this namespace", set())
        if found.names or found.too_young:
            yield found


def _unneeded(storage: Storage, folder: str, why: str, needed: set[str]) -> Garbage:
    entries = [e for e in storage.entries(folder) if e.name not in needed and (not needed or "/" in _below(e, folder))]
    old = sorted((entry for entry in entries if entry.age > SETTLED_SECONDS), key=_order)
    key = read_key(storage, folder)
    return Garbage(
        namespace=folder,
        encoder=key.encoder if key else None,
        why=why,
        shards=sum(entry.name.endswith(".json") and "/" in _below(entry, folder) for entry in old),
        bytes=sum(entry.bytes for entry in old),
        too_young=len(entries) - len(old),
        names=tuple(entry.name for entry in old),
    )


def _below(entry: Entry, folder: str) -> str:
    return entry.name[len(folder) + 1 :]


def _order(entry: Entry) -> tuple[bool, str]:
    """Manifests before data: a shard without manifest does not exist."""
    return not entry.name.endswith(".json"), entry.name
