"""Verification of every byte of a namespace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from flows.store.catalogue import Catalogue, call_in_parallel
from flows.store.shard import Damage, broken, data_name, read_manifest
from flows.store.storage import Storage
from samif.errors import ObjectMissing


def verify(storage: Storage, folder: str, catalogue: Catalogue, advance: Callable[[int], None]) -> list[Damage]:
    """Verify the SHA-256 of every shard; `advance` is called with 1 for each.

    A data file without manifest is damage too (its writer may be about to write the manifest: if the data is discarded
    then, its images are missing, never wrong), and so is a temporary file older than an hour. `Damage.discard` deletes
    what was found; the next run computes it again.
    """

    def check(shard: str) -> Damage | None:
        found = read_manifest(storage, folder, shard)
        if isinstance(found, Damage):
            return found
        manifest = found[0]
        sha256 = hashlib.sha256()
        try:
            for chunk in storage.chunks(data_name(folder, shard, manifest.sha256)):
                sha256.update(chunk)
        except ObjectMissing as error:
            return broken(storage, folder, manifest, str(error))
        if sha256.hexdigest() != manifest.sha256:
            return broken(storage, folder, manifest, "its bytes do not match their SHA-256")
        return None

    damages = list(catalogue.damages)
    for damage in call_in_parallel(storage, check, catalogue.shards()):
        advance(1)
        if damage is not None:
            damages.append(damage)
    return damages
