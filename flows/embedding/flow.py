"""Embed images: embeddings that the store lacks are computed, shard by shard, in this process or by workers on Ray.

A shard is one idempotent task: decode, encode, commit to the store. A worker that dies is replaced and its shards are
assigned again; after a crash of the whole run, the next run computes what is not committed. Images that cannot be read
are quarantined.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.image_keys import ImageKeys
from flows.artifacts.quarantine import Quarantined
from flows.embedding.dispatch import WorkerPool
from flows.embedding.encoder import EncoderFactory, EncoderInfo, describe_encoder, load_encoder
from flows.embedding.shard_encoder import ShardEncoder
from flows.embedding.shards import Shard, Shards, divide
from flows.runtime.device import device_here
from flows.runtime.progress import Tracker, track
from flows.runtime.ray_cluster import ray_cluster
from flows.store import EmbeddingStore
from samif.config import EmbedParams, EncoderParams, SemanticParams
from samif.errors import ServiceUnavailable

Progress = Callable[[int, str, str], AbstractContextManager[Tracker]]


@dataclass(frozen=True)
class Embedded:
    """Result of `embed_images`.

    Attributes:
        manifest: the images that the store now holds; it depends on images and encoder only, not on what the store
            held before.
        computed: number of images that this run encoded.
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
    info: EncoderInfo | None = None,
) -> Embedded:
    """Make sure that the store holds the embedding of every image that can be read.

    If one shard is enough it is computed in this process; several shards are divided among
    `params.workers` workers of a Ray cluster (`flows.runtime.ray_cluster`), each with one encoder and, where the
    cluster has GPUs, one GPU. The store and the images must be visible to the workers under the same path.
    `params.store` is not read: the caller opened the store.

    Args:
        images: path and SHA-256 (hex) of each image file; an image given twice is computed once. It is read once for
            the digests, and then a shard at a time; it may read itself from a file.
        params: shards, batches and workers.
        encoder_params: the encoder to load, unless a factory is given.
        store: where embeddings are looked up and written, and as which dtype.
        progress: called with total, unit and description if anything is computed (see `flows.runtime.progress.track`).
        encoder_factory: makes the encoder, here and in each worker; must be picklable.
        info: `describe_encoder(encoder_params)`, if the caller has it already.

    Raises:
        ServiceUnavailable: the store cannot be written, no cluster answers, or workers keep dying.
        SamifError: an encoder cannot be loaded.
    """
    factory = encoder_factory or functools.partial(load_encoder, encoder_params)
    if info is None:
        info = EncoderInfo.of(encoder_factory("cpu")) if encoder_factory else describe_encoder(encoder_params)
    given = ImageKeys.of(sha256 for _, sha256 in images)
    by_key = given.once()
    keys = ImageKeys(given.raw[by_key])  # of the manifest: ascending, each once
    in_order = np.sort(by_key)
    namespace = store.namespace(info.digest, info.preprocessing_digest)
    missing = in_order[namespace.lacks(ImageKeys(given.raw[in_order]))]
    if len(missing) and namespace.recover(info.embedding_shape):
        missing = missing[namespace.lacks(ImageKeys(given.raw[missing]))]
    quarantined: Sequence[Quarantined] = ()
    if len(missing):
        with progress(len(missing), "images", "embed") as tracker:
            if len(missing) <= params.shard_images:
                here = ShardEncoder(factory(device_here()), store, params.batch_images)
                quarantined = _embed_here(here, Shards(images, missing, 1)[0], tracker)
            else:
                with ray_cluster(params.address, params.workers, f"samif embed {info.name}") as cluster:
                    shards = divide(images, missing, params.shard_images, cluster.workers)
                    count = min(cluster.workers, len(shards))
                    pool = WorkerPool(cluster, count, factory, info.digest, store, params.batch_images, info.name)
                    quarantined = pool.embed(shards, tracker)
    out = ImageKeys.of(sorted({image.sha256 for image in quarantined}))
    computed = ImageKeys(given.raw[missing])
    computed = ImageKeys(computed.raw[~out.hold(computed)])
    if left := int(namespace.lacks(computed).sum()):
        raise ServiceUnavailable(
            f"the embedding store {store.location} still lacks {left} images that workers computed; "
            "all workers must see this store under this address"
        )
    manifest = EmbeddingManifest(
        encoder=EncoderIdentity(name=info.name, digest=info.digest),
        preprocessing=info.preprocessing_digest,
        shape=info.embedding_shape,
        dtype=store.stored_as,
        images=ImageKeys(keys.raw[~out.hold(keys)]),
    )
    return Embedded(manifest, len(computed), tuple(sorted(quarantined, key=lambda q: q.path)))


def _embed_here(encoder: ShardEncoder, shard: Shard, tracker: Tracker) -> tuple[Quarantined, ...]:
    outcome = encoder.embed(shard, tracker.advance)
    tracker.quarantine(len(outcome.quarantined))
    for note in outcome.notes:
        tracker.note(note)
    return outcome.quarantined
