"""Looking at every byte of a namespace."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from flows.store.catalogue import Catalogue, side_by_side
from flows.store.shard import Damage, broken, data_name, read_manifest
from flows.store.storage import Lost, Storage


def verify(storage: Storage, folder: str, catalogue: Catalogue, advance: Callable[[int], None]) -> list[Damage]:
    """Hash every shard anew and compare; `advance` is called with 1 for each.

    Damage is also a data file without manifest (its writer may be about to write that: when the data is discarded then,
    the images are missing, never wrong) and a temporary file older than an hour. `Damage.discard` removes what was
    found; the next run computes it again.
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
        except Lost as error:
            return broken(storage, folder, manifest, str(error))
        if sha256.hexdigest() != manifest.sha256:
            return broken(storage, folder, manifest, "its bytes do not match their SHA-256")
        return None

    damages = list(catalogue.damages)
    for damage in side_by_side(storage, check, catalogue.shards()):
        advance(1)
        if damage is not None:
            damages.append(damage)
    return damages
