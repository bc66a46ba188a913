"""Embed images: what the store misses is computed, shard by shard, in this process or by workers on Ray.

A shard is one idempotent task: decode, encode, commit to the store. A worker that dies is replaced and its shards are
given out again; after a crash of everything, the next run computes what is not committed. An image that cannot be
read is left out and named.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.quarantine import Quarantined
from flows.embedding.dispatch import WorkerPool, divide
from flows.embedding.encoder import EncoderFactory, load_encoder
from flows.embedding.shard_encoder import Shard, ShardEncoder
from flows.runtime.device import device_here
from flows.runtime.progress import Tracker, track
from flows.runtime.ray_cluster import ray_cluster
from flows.store import EmbeddingStore
from samif.config import EmbedParams, EncoderParams, SemanticParams
from samif.errors import SamifError

Progress = Callable[[int, str, str], AbstractContextManager[Tracker]]


@dataclass(frozen=True)
class Embedded:
    """What a run came to.

    Attributes:
        manifest: the images that the store now holds: equal for equal images and encoder, whatever was already
            in the store.
        computed: how many of them this run encoded.
        quarantined: images that could not be read and are not in the manifest, by path.
    """

    manifest: EmbeddingManifest
    computed: int
    quarantined: tuple[Quarantined, ...]


def embed_images(
    images: Sequence[tuple[Path, str]],
    params: EmbedParams,
    encoder_params: EncoderParams | SemanticParams,
    store: EmbeddingStore,
    progress: Progress = track,
    encoder_factory: EncoderFactory | None = None,
) -> Embedded:
    """Make sure that the store holds the embedding of every image that can be read.

    What fits into one shard is computed in this process, since a cluster could not divide it; more is divided among
    `params.workers` workers of a Ray cluster (`flows.runtime.ray_cluster`), each with one encoder and, where the
    cluster has GPUs, one GPU. The store and the images must be visible to the workers under the same path.
    `params.store` is not read: the caller opened the store.

    Args:
        images: path and SHA-256 (hex) of each image file; an image given twice is computed once.
        params: shards, batches and workers.
        encoder_params: the encoder to load, unless a factory is given.
        store: where embeddings are looked up and written, and as which dtype.
        progress: called with total, unit and description if anything is computed (see `flows.runtime.progress.track`).
        encoder_factory: makes the encoder, here and in each worker; must be picklable.

    Raises:
        SamifError: an encoder cannot be loaded, the store cannot be written, or workers keep dying.
    """
    factory = encoder_factory or functools.partial(load_encoder, encoder_params)
    encoder = factory("cpu")
    paths = {sha256: path.absolute() for path, sha256 in images}
    namespace = store.namespace(encoder.digest, encoder.preprocessing_digest)
    missing = namespace.missing(list(paths))
    if missing and namespace.recover(encoder.embedding_shape):
        missing = namespace.missing(missing)
    quarantined: Sequence[Quarantined] = ()
    if missing:
        todo = tuple((paths[sha256], sha256) for sha256 in missing)
        with progress(len(todo), "images", "embed") as tracker:
            if len(todo) <= params.shard_images:
                device = device_here()
                here = ShardEncoder(encoder if device == "cpu" else factory(device), store, params.batch_images)
                quarantined = _embed_here(here, todo, tracker)
            else:
                with ray_cluster(params.address, params.workers) as cluster:
                    shards = divide(todo, params.shard_images, cluster.workers)
                    count = min(cluster.workers, len(shards))
                    pool = WorkerPool(cluster, count, factory, encoder.digest, store, params.batch_images)
                    quarantined = pool.embed(shards, tracker)
    out = {image.sha256 for image in quarantined}
    if left := namespace.missing([sha256 for sha256 in missing if sha256 not in out]):
        raise SamifError(
            f"the embedding store {store.location} still misses {len(left)} images that workers computed; "
            "all workers must see this store under this address"
        )
    manifest = EmbeddingManifest(
        encoder=EncoderIdentity(name=encoder.name, digest=encoder.digest),
        preprocessing=encoder.preprocessing_digest,
        shape=encoder.embedding_shape,
        dtype=store.stored_as,
        images=tuple(sorted(paths.keys() - out)),
    )
    return Embedded(manifest, len(missing) - len(out), tuple(sorted(quarantined, key=lambda q: q.path)))


def _embed_here(encoder: ShardEncoder, shard: Shard, tracker: Tracker) -> tuple[Quarantined, ...]:
    outcome = encoder.embed(shard, tracker.advance)
    tracker.quarantine(len(outcome.quarantined))
    for note in outcome.notes:
        tracker.note(note)
    return outcome.quarantined
