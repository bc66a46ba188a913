"""What a store holds as a whole, and what of it nobody needs any more."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.store.catalogue import SETTLED_SECONDS, Catalogue
from flows.store.namespace_key import Identity, noted
from flows.store.storage import Entry, Storage

_NAMESPACE = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class NamespaceStat:
    """A namespace in numbers; `encoder`, `preprocessing` and `dtype` are None where it does not say them."""

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
    """What of a namespace no manifest needs; `names` in the order in which they can be removed at any interruption."""

    namespace: str
    encoder: str | None
    why: str
    shards: int
    bytes: int
    too_young: int
    """Objects that stay for now, since somebody may be about to use them."""
    names: tuple[str, ...]


def namespaces(storage: Storage) -> list[str]:
    """Namespaces of a store; folders of other names are not the store's."""
    return [name for name in storage.folders() if _NAMESPACE.fullmatch(name)]


def stat(storage: Storage) -> Iterator[NamespaceStat]:
    """Each namespace that holds anything; nothing is hashed."""
    for folder in namespaces(storage):
        catalogue = Catalogue(storage, folder)
        if catalogue.bytes:
            identity = noted(storage, folder)
            yield NamespaceStat(
                namespace=folder,
                encoder=identity.encoder if identity else None,
                preprocessing=identity.preprocessing if identity else None,
                dtype=identity.dtype if identity else None,
                shards=len(catalogue.shards()),
                images=catalogue.count(),
                bytes=catalogue.bytes,
                damages=tuple(f"{damage.shard}: {damage.reason}" for damage in catalogue.damages),
            )


def garbage(storage: Storage, kept: Sequence[EmbeddingManifest]) -> Iterator[Garbage]:
    """What is needed by none of the manifests, nor younger than an hour; nothing is removed.

    Of a namespace that a manifest names, those shards go in which readers would look up none of its images, and
    whatever lies about besides.
    """
    images: dict[str, set[str]] = defaultdict(set)
    identities: dict[str, Identity] = {}
    for manifest in kept:
        identity = Identity.of(manifest)
        identities[identity.folder] = identity
        images[identity.folder].update(manifest.images)
    for folder in namespaces(storage):
        if folder in identities:
            catalogue = Catalogue(storage, folder)
            places = catalogue.find(identities[folder].words(sorted(images[folder])))
            needed = catalogue.names({place[0] for place in places if place is not None})
            found = _unneeded(storage, folder, "no image of these manifests is in them", needed)
        else:
            found = _unneeded(storage, folder, "none of these manifests names this namespace", set())
        if found.names or found.too_young:
            yield found


def _unneeded(storage: Storage, folder: str, why: str, needed: set[str]) -> Garbage:
    entries = [e for e in storage.entries(folder) if e.name not in needed and (not needed or "/" in _below(e, folder))]
    old = sorted((entry for entry in entries if entry.age > SETTLED_SECONDS), key=_order)
    identity = noted(storage, folder)
    return Garbage(
        namespace=folder,
        encoder=identity.encoder if identity else None,
        why=why,
        shards=sum(entry.name.endswith(".json") and "/" in _below(entry, folder) for entry in old),
        bytes=sum(entry.bytes for entry in old),
        too_young=len(entries) - len(old),
        names=tuple(entry.name for entry in old),
    )


def _below(entry: Entry, folder: str) -> str:
    return entry.name[len(folder) + 1 :]


def _order(entry: Entry) -> tuple[bool, str]:
    """Manifests before data: a shard whose manifest is gone does not exist."""
    return not entry.name.endswith(".json"), entry.name
