"""Committed shards of one encoder, one preprocessing and one dtype."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flows.store.catalogue import Catalogue
from flows.store.codec import Layout, encode, keys_of, row_sums, serialise
from flows.store.namespace_key import NamespaceKey
from flows.store.open_shard import OpenShard
from flows.store.shard import Damage, ShardManifest, broken, data_name, manifest_name, read_manifest
from flows.store.storage import Storage
from flows.store.verify import verify
from samif.errors import IntegrityError, ObjectMissing

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 16


class Namespace:
    """Embeddings of one encoder and preprocessing, addressed by the SHA-256 of the image file (hex).

    Nothing is cached between calls: another process may write at any time.
    """

    def __init__(self, storage: Storage, key: NamespaceKey) -> None:
        self._storage = storage
        self.key = key
        self.folder = key.folder
        self._key_written = False

    @property
    def location(self) -> str:
        """Folder or address, for messages."""
        return f"{self._storage.location}/{self.folder}"

    def shard_name(self, images: Sequence[str]) -> str:
        """Name of the shard that holds exactly these images in this order."""
        return _name(self.key.keys(images))

    def holds(self, shard: str) -> bool:
        """Whether a shard is committed, by its manifest and the size of its data (nothing is hashed)."""
        found = read_manifest(self._storage, self.folder, shard)
        return not isinstance(found, Damage) and self._size(found[0]) == found[0].bytes

    def catalogue(self) -> Catalogue:
        """Snapshot of the namespace."""
        return Catalogue(self._storage, self.folder)

    def missing(self, images: Iterable[str]) -> list[str]:
        """Those of the images that no committed shard holds, in the given order, each once."""
        left: dict[str, None] = {}
        for some, held in self._looked_up(images):
            left.update((image, None) for image, there in zip(some, held, strict=True) if not there)
        return list(left)

    def lacks(self, images: Iterable[str]) -> npt.NDArray[np.bool_]:
        """(n,) whether no committed shard holds each of n images."""
        found = [~held for _, held in self._looked_up(images)]
        return np.concatenate(found) if found else np.zeros(0, np.bool_)

    def _looked_up(self, images: Iterable[str]) -> Iterator[tuple[list[str], npt.NDArray[np.bool_]]]:
        """Some images at a time, and whether a committed shard holds them."""
        catalogue, rest = self.catalogue(), iter(images)
        while some := list(islice(rest, _CHUNK)):
            yield some, catalogue.holds(self.key.words(some))

    def write(self, images: Sequence[str], embeddings: torch.Tensor) -> str:
        """Commit one shard; a shard that is already committed is not changed.

        Args:
            images: SHA-256 of the n image files, each once.
            embeddings: (n, C, h, w) floating point on any device; stored as the namespace's dtype. A stored row must be
                a multiple of eight bytes.

        Returns:
            The name of the shard.

        Raises:
            ValueError: the shapes do not match.
            IntegrityError: an embedding is not finite in that dtype.
            ServiceUnavailable: the store cannot be written. Committed shards are kept.
        """
        if embeddings.ndim != 4 or len(embeddings) != len(set(images)) or len(images) != len(set(images)):
            raise ValueError(f"{len(images)} images do not go with embeddings of shape {tuple(embeddings.shape)}")
        name = self.shard_name(images)
        if self.holds(name):
            return name
        encoded = encode(embeddings, self.key.dtype)
        if not bool(encoded.finite.all()):
            bad = images[int((~encoded.finite).nonzero()[0, 0])]
            raise IntegrityError(
                f"the encoder's embedding of image {bad} is not finite as {self.key.dtype}; check the encoder's "
                "checkpoint, or set 'encoder.stored_as' to int8 if its values are above 65,504"
            )
        self._commit(images, encoded.rows, embeddings.shape)
        return name

    def _commit(self, images: Sequence[str], rows: torch.Tensor, shape: torch.Size) -> None:
        keys = self.key.keys(images)
        content = serialise(rows, self.key.dtype, keys)
        sha256 = hashlib.sha256()
        for chunk in content:
            sha256.update(chunk)
        size = sum(len(chunk) for chunk in content)
        manifest = self._manifest(keys, shape[1:], sha256.hexdigest(), size, row_sums(rows))
        if not self._key_written:
            self.key.write(self._storage)
            self._key_written = True
        self._storage.write(data_name(self.folder, manifest.shard, manifest.sha256), content)
        self._publish(manifest)

    def _publish(self, manifest: ShardManifest) -> bool:
        """Write the manifest of data that is already written, which commits the shard. False if the shard is already
        committed with other data."""
        place = manifest_name(self.folder, manifest.shard)
        text = (manifest.model_dump_json(indent=1, by_alias=True) + "\n").encode()
        if self._storage.create(place, text):
            return True
        if not self.holds(manifest.shard):  # the manifest under this name is damaged
            self._storage.write(place, [text])
            return True
        # Another writer was first; its embeddings may differ from ours in the last bits.
        found = read_manifest(self._storage, self.folder, manifest.shard)
        if isinstance(found, Damage) or found[0].sha256 == manifest.sha256:
            return True
        self._storage.delete([data_name(self.folder, manifest.shard, manifest.sha256)])
        return False

    def recover(self, shape: tuple[int, int, int]) -> int:
        """Commit data whose writer died before it wrote the manifest; delete data that does not match its name.

        A writer that is still running finds its manifest written.

        Args:
            shape: (C, h, w) of an embedding.

        Returns:
            Number of shards committed.
        """
        recovered = 0
        for name in self.catalogue().orphans:
            try:
                content = b"".join(self._storage.chunks(name))
            except ObjectMissing:  # its writer was the second one and deleted it
                continue
            sha256, keys = hashlib.sha256(content).hexdigest(), keys_of(content)
            if keys is None or data_name(self.folder, _name(keys), sha256) != name:
                self._storage.delete([name])
                continue
            layout = Layout(self.key.dtype, (len(keys), *shape), len(content))
            sums = layout.sums(memoryview(content), 0, len(keys)).tolist()
            recovered += self._publish(self._manifest(keys, shape, sha256, len(content), sums))
        return recovered

    def _manifest(
        self, keys: Sequence[str], shape: Sequence[int], sha256: str, size: int, sums: Sequence[int]
    ) -> ShardManifest:
        channels, height, width = shape
        return ShardManifest(
            shard=_name(keys),
            keys=tuple(keys),
            shape=(len(keys), channels, height, width),
            dtype=self.key.dtype,
            file=data_name(self.folder, _name(keys), sha256).rpartition("/")[2],
            sha256=sha256,
            bytes=size,
            row_sums=tuple(sums),
        ).sealed()

    def open(self, shard: str) -> OpenShard:
        """A committed shard to read rows from.

        Raises:
            IntegrityError: the shard is missing or damaged (then it is discarded).
        """
        found = read_manifest(self._storage, self.folder, shard)
        if isinstance(found, Damage):
            raise self._refusal(found)
        manifest = found[0]
        data = data_name(self.folder, shard, manifest.sha256)
        try:
            return OpenShard(manifest, self._storage.view(data, manifest.bytes), self._refuse)
        except ObjectMissing as error:
            raise self._refuse(manifest, str(error)) from None

    def verify(self, advance: Callable[[int], None] = lambda _: None) -> list[Damage]:
        """Verify the SHA-256 of every shard (`flows.store.verify`)."""
        return verify(self._storage, self.folder, self.catalogue(), advance)

    def _size(self, manifest: ShardManifest) -> int | None:
        return self._storage.size(data_name(self.folder, manifest.shard, manifest.sha256))

    def _refuse(self, manifest: ShardManifest, reason: str) -> IntegrityError:
        return self._refusal(broken(self._storage, self.folder, manifest, reason))

    def _refusal(self, damage: Damage) -> IntegrityError:
        damage.discard()
        return IntegrityError(
            f"embedding shard {damage.shard} in {self.location} cannot be used: {damage.reason}; "
            "run 'samif run', which computes it again"
        )


def _name(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()
