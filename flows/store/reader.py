"""Reading the embeddings of a manifest's images."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.store.catalogue import Place
from flows.store.open_shard import OpenShard
from samif.errors import ObjectMissing

if TYPE_CHECKING:
    import torch

    from flows.store import EmbeddingStore

_OPEN_SHARDS = 32


class EmbeddingReader:
    """Embeddings of a manifest's images: memory-mapped from a folder, by byte range from a bucket.

    The last few shards stay open. Not thread-safe.
    """

    def __init__(self, store: EmbeddingStore, manifest: EmbeddingManifest) -> None:
        self.manifest = manifest
        self._namespace = store.namespace(manifest.encoder.digest, manifest.preprocessing, manifest.dtype)
        self._catalogue = self._namespace.catalogue()
        self._open: OrderedDict[str, OpenShard] = OrderedDict()

    def read(self, images: Sequence[str], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Embeddings in the order of `images` (SHA-256 of the files; one may occur several times).

        Args:
            images: n images of the manifest.
            dtype: float32 (default) or float16.

        Returns:
            (n, C, h, w) on the CPU, a copy that the caller may change.

        Raises:
            ObjectMissing: an image is not in the manifest or not in the store.
            IntegrityError: a shard is damaged; it is discarded, so the next run computes it again.
        """
        import torch

        # NumPy asks for huge pages, which makes the first write to a large array three times as fast.
        memory = np.empty((len(images), *self.manifest.shape), np.float16 if dtype == torch.float16 else np.float32)
        out = torch.from_numpy(memory)
        wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, (name, row) in enumerate(self._places(images)):
            wanted[name].append((row, index))
        for name, places in wanted.items():
            shard = self._shard(name)
            shard.check(sorted({row for row, _ in places}))
            for row, index, count in _runs(places):
                shard.copy(row, out[index : index + count])
        return out

    def _places(self, images: Sequence[str]) -> list[Place]:
        known = self.manifest.images.hold(images)
        places = self._catalogue.find(self._namespace.key.words(images))
        found: list[Place] = []
        for image, there, place in zip(images, known, places, strict=True):
            if not there:
                raise ObjectMissing(f"image {image} is not in the embedding manifest; run 'samif run' again")
            if place is None:
                raise self._missing(image)
            found.append(place)
        return found

    def _missing(self, image: str) -> ObjectMissing:
        catalogue = self._namespace.catalogue()
        damages = [f"{damage.shard} ({damage.reason})" for damage in catalogue.damages]
        damages += [f"{name.rpartition('/')[2].partition('.')[0]} (it has no manifest)" for name in catalogue.orphans]
        return ObjectMissing(
            f"no shard in {self._namespace.location} holds the embedding of image {image}; "
            f"damaged shards there: {', '.join(damages) or 'none'}; run 'samif run', which computes it again"
        )

    def _shard(self, name: str) -> OpenShard:
        if name not in self._open:
            self._open[name] = self._namespace.open(name)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]


def _runs(places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(row, index) pairs as (row, index, count) where both ascend together: torch's overhead is per call."""
    runs: list[tuple[int, int, int]] = []
    for row, index in places:
        if runs and (row, index) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((row, index, 1))
    return runs
