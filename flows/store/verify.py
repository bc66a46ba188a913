"""Verification of every byte of a namespace, and removal of what is damaged while others write to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from flows.store.catalogue import Catalogue, call_in_parallel
from flows.store.shard import Damage, ShardManifest, broken, data_name, manifest_name, read_manifest
from flows.store.storage import Storage
from samif.errors import ObjectMissing


def verify(storage: Storage, folder: str, catalogue: Catalogue, advance: Callable[[int], None]) -> list[Damage]:
    """Verify the SHA-256 of every committed shard; `advance` is called with 1 for each of the catalogue's shards.

    A shard is damaged if two readings say so: a listing is no snapshot of what other processes write meanwhile. Data
    without a manifest is no damage: its writer may be about to write it, and the next run commits it otherwise. A
    temporary file older than an hour is damage.
    """
    known = catalogue.shards()
    listed = [damage.shard for damage in catalogue.damages if damage.manifest]
    suspects = set(listed)
    for shard, damage in zip(known, call_in_parallel(storage, lambda s: check(storage, folder, s), known), strict=True):
        advance(1)
        if damage is not None:
            suspects.add(shard)
    again = (check(storage, folder, shard) for shard in sorted(suspects))
    unfinished = [damage for damage in catalogue.damages if damage.names and not damage.manifest]
    return [*(damage for damage in again if damage is not None), *unfinished]


def check(storage: Storage, folder: str, shard: str) -> Damage | None:
    """The damage of a shard as it is now; None if it is intact, or no longer committed."""
    found = read_manifest(storage, folder, shard)
    if isinstance(found, Damage):
        return found if found.names else None
    manifest = found[0]
    reason = _differs(storage, folder, manifest)
    return broken(storage, folder, manifest, reason) if reason else None


def repair(storage: Storage, folder: str, damage: Damage) -> bool:
    """Remove the manifest of a damaged shard, so that its images are missing and the next run computes them.

    Writers may be at work. They write data first and then the manifest, so the order here is the opposite one: the
    manifest is removed, then the data is read once more, and the manifest is put back if a writer has replaced the data
    meanwhile. The data itself is never removed: the next run does so if it is not what its name says.

    Returns:
        Whether the damage is gone; False where the storage does not permit that.
    """
    if not damage.manifest:  # a temporary file whose writer is dead
        damage.discard()
        return all(storage.size(name) is None for name in damage.names)
    if check(storage, folder, damage.shard) is None:
        return True
    name = manifest_name(folder, damage.shard)
    content, found = storage.read(name), read_manifest(storage, folder, damage.shard)
    storage.delete([name])
    if content is not None and not isinstance(found, Damage) and not _differs(storage, folder, found[0]):
        storage.create(name, content)
    return check(storage, folder, damage.shard) is None


def _differs(storage: Storage, folder: str, manifest: ShardManifest) -> str:
    """In what the data of a shard differs from its manifest; "" if in nothing."""
    sha256, size = hashlib.sha256(), 0
    try:
        for chunk in storage.chunks(data_name(folder, manifest.shard, manifest.sha256)):
            sha256.update(chunk)
            size += len(chunk)
    except ObjectMissing as error:
        return str(error)
    if size != manifest.bytes:
        return f"it has {size} bytes instead of {manifest.bytes}"
    return "" if sha256.hexdigest() == manifest.sha256 else "its bytes do not match their SHA-256"
