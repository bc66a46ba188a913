"""Embed pictures on Ray: what the store misses is computed, shard by shard, by a pool of encoders.

A shard is one idempotent task: the worker decodes, encodes, writes the shard to the store and returns a count. A worker
that dies is started again and its task repeated; a worker whose node is gone has its tasks given to another. After a
crash of everything, the next run computes what is not committed.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from flows.cluster import Cluster, ray_cluster
from flows.embedding_manifest import EmbeddingManifest, EncoderIdentity, Shape
from flows.progress import Tracker, track
from flows.store import EmbeddingStore
from samif.config import EmbedParams, EncoderParams
from samif.errors import SamifError

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
Shard = tuple[tuple[Path, str], ...]
"""Path and SHA-256 of each picture of a shard."""

_SHARDS_PER_WORKER = 2
"""In flight: while one is encoded, the next is decoded and the last one written."""
_RESTARTS = 3
_SILENCE_SECONDS = 10.0
"""When no shard is finished for so long, workers are asked whether they live."""


class Encoder(Protocol):
    """What an image encoder must offer (see `samif.sam.encoder.ImageEncoder`)."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def preprocessing_digest(self) -> str: ...
    @property
    def embedding_shape(self) -> Shape: ...

    def encode(self, pictures: Sequence[Pixels]) -> torch.Tensor:
        """n pictures (H, W, 3) uint8 RGB to (n, C, h, w) float32."""


EncoderFactory = Callable[[], Encoder]
Progress = Callable[[int, str, str], AbstractContextManager[Tracker]]


def embed_pictures(
    pictures: Sequence[tuple[Path, str]],
    params: EmbedParams,
    encoder_params: EncoderParams,
    store: EmbeddingStore,
    progress: Progress = track,
    encoder_factory: EncoderFactory | None = None,
) -> EmbeddingManifest:
    """Make sure that the store holds the embedding of every picture.

    What fits into one shard is computed in this process, since a cluster could not divide it; more is divided among
    `params.workers` workers of a Ray cluster (`flows.cluster`), each with one encoder and, where the cluster has GPUs,
    one GPU. The store and the pictures must be visible to the workers under the same path. `params.store` is not read:
    the caller opened the store.

    Args:
        pictures: path and SHA-256 (hex) of each picture file; a picture given twice is computed once.
        params: shards, batches and workers.
        encoder_params: the encoder to load, unless a factory is given.
        store: where embeddings are looked up and written.
        progress: called with total, unit and description if anything is computed (see `flows.progress.track`).
        encoder_factory: makes the encoder, here and in each worker; must be picklable.

    Returns:
        The manifest of these pictures: equal for equal pictures and encoder, whatever was already in the store.

    Raises:
        SamifError: a picture cannot be decoded (names the file), an encoder cannot be loaded, or workers keep dying.
    """
    factory = encoder_factory or functools.partial(_load_encoder, encoder_params)
    encoder = factory()
    manifest = EmbeddingManifest(
        encoder=EncoderIdentity(name=encoder.name, digest=encoder.digest),
        preprocessing=encoder.preprocessing_digest,
        shape=encoder.embedding_shape,
        pictures=tuple(sorted({sha256 for _, sha256 in pictures})),
    )
    paths = {sha256: path.absolute() for path, sha256 in pictures}
    namespace = store.namespace(encoder.digest, encoder.preprocessing_digest)
    missing = namespace.missing(list(paths))
    if not missing:
        return manifest
    todo = [(paths[sha256], sha256) for sha256 in missing]
    with progress(len(todo), "pictures", "embed") as tracker:
        if len(todo) <= params.shard_pictures:
            ShardEncoder(encoder, store, params.batch_pictures).embed(tuple(todo), tracker.advance)
        else:
            del encoder  # the workers have their own
            with ray_cluster(params.address, params.workers) as cluster:
                shards = _divide(todo, params.shard_pictures, cluster.workers)
                _fan_out(shards, cluster, (factory, store.root, params), tracker)
    if left := namespace.missing(missing):
        raise SamifError(
            f"the embedding store {store.root} still misses {len(left)} pictures that workers computed; "
            "all workers must see this folder under this path and load the same checkpoint"
        )
    return manifest


class ShardEncoder:
    """Turns shards of picture files into shards of the store; decoding runs ahead of encoding.

    `embed` may be called from several threads: only one encodes at a time, while others decode or write.
    """

    def __init__(self, encoder: Encoder, store: EmbeddingStore, batch_pictures: int) -> None:
        self._encoder = encoder
        self._namespace = store.namespace(encoder.digest, encoder.preprocessing_digest)
        self._batch = batch_pictures
        self._decoding = ThreadPoolExecutor(2, "decode")
        # One thread for good: each thread that computes gets an OpenMP pool of its own.
        self._encoding = ThreadPoolExecutor(1, "encode")

    def embed(self, shard: Shard, advance: Callable[[int], None] = lambda _: None) -> int:
        """Commit the shard unless the store has it.

        Returns:
            The number of pictures.

        Raises:
            SamifError: a picture cannot be decoded, or its embedding is not finite.
        """
        import torch

        names = [sha256 for _, sha256 in shard]
        if not self._namespace.holds(self._namespace.shard_name(names)):
            embeddings = torch.empty((len(shard), *self._encoder.embedding_shape), dtype=torch.float16)
            start = 0
            for batch in self._decoded([path for path, _ in shard]):
                encoded = self._encoding.submit(self._encoder.encode, batch).result()
                embeddings[start : start + len(batch)] = encoded
                start += len(batch)
                advance(len(batch))
            self._namespace.write(names, embeddings)
        return len(shard)

    def _decoded(self, paths: Sequence[Path]) -> Iterator[list[Pixels]]:
        from samif.dataset.pictures import read_picture

        ahead: deque[list[Future[Pixels]]] = deque()
        for start in range(0, len(paths), self._batch):
            ahead.append([self._decoding.submit(read_picture, path) for path in paths[start : start + self._batch]])
            if len(ahead) > 1:
                yield [picture.result() for picture in ahead.popleft()]
        while ahead:
            yield [picture.result() for picture in ahead.popleft()]


class _Worker:
    """The Ray actor: one encoder, loaded at the first call so that what goes wrong reaches the caller."""

    def __init__(self, factory: EncoderFactory, root: Path, params: EmbedParams) -> None:
        self._factory, self._root, self._params = factory, root, params
        self._loading = threading.Lock()
        self._encoder: ShardEncoder | None = None

    def ready(self) -> None:
        """Returns when the encoder is loaded."""
        self._loaded()

    def embed(self, shard: Shard) -> int:
        try:
            return self._loaded().embed(shard)
        except SamifError as error:
            # Subclasses with arguments of their own do not survive pickling.
            raise SamifError(str(error)) from None

    def _loaded(self) -> ShardEncoder:
        with self._loading:
            if self._encoder is None:
                self._encoder = ShardEncoder(self._factory(), EmbeddingStore(self._root), self._params.batch_pictures)
            return self._encoder


def _load_encoder(params: EncoderParams) -> Encoder:
    from samif.sam.encoder import load_encoder

    return load_encoder(params.name, Path(params.checkpoint) if params.checkpoint else None, params.sha256)


def _divide(pictures: Sequence[tuple[Path, str]], largest: int, workers: int) -> list[Shard]:
    """Shards of nearly equal size, none above `largest`, as many for each worker."""
    rounds = -(-len(pictures) // (largest * workers))
    count = min(len(pictures), rounds * workers)
    bounds = [len(pictures) * index // count for index in range(count + 1)]
    return [tuple(pictures[start:end]) for start, end in itertools.pairwise(bounds)]


def _fan_out(
    shards: Sequence[Shard], cluster: Cluster, arguments: tuple[EncoderFactory, Path, EmbedParams], tracker: Tracker
) -> None:
    """Have the shards embedded by workers of a Ray cluster that is connected; returns when all are committed."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    actor = ray.remote(_Worker).options(
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus_per_worker,
        max_restarts=_RESTARTS,
        max_task_retries=-1,  # each vain call to a worker that is being restarted counts: let restarts be the limit
        max_concurrency=_SHARDS_PER_WORKER + 1,  # one more, to answer when asked whether it lives
    )
    workers: list[Any] = [actor.remote(*arguments) for _ in range(min(cluster.workers, len(shards)))]
    try:
        _Dispatch(shards, workers, tracker).run()
    except RayTaskError as error:
        if isinstance(error.cause, SamifError):
            raise SamifError(str(error.cause)) from None
        raise
    except RayError as error:
        reason = str(error).strip().split("\n")[0]
        raise SamifError(
            f"an embedding worker failed for good ({reason}); finished shards are kept: lower 'embed.batch_pictures' "
            "or 'embed.workers' in params.yaml if memory ran out, then rerun 'samif run'"
        ) from None
    finally:
        # A worker ends when no handle to it is left; killing it would print Ray's alarm about what it had begun.
        workers.clear()


@dataclass
class _Task:
    """A call in flight; `shard` is an index, or None where a worker was asked whether it is ready."""

    worker: int
    shard: int | None


class _Dispatch:
    """Gives shards to workers that answer, a few at a time, until all are done.

    Ray repeats the tasks of a worker that died, but where no room is left for it (its node is gone) they would wait
    for ever: shards of a worker that does not answer are given to others as well. Twice the same shard is harmless.
    """

    def __init__(self, shards: Sequence[Shard], workers: Sequence[Any], tracker: Tracker) -> None:
        self._workers = workers
        self._tracker = tracker
        self._unfinished = dict(enumerate(shards))
        self._queue = deque(self._unfinished)
        self._in_flight: dict[Any, _Task] = {}
        self._answering: set[int] = set()

    def run(self) -> None:
        import ray

        for worker in range(len(self._workers)):
            self._ask(worker)
        while self._unfinished:
            finished, _ = ray.wait(list(self._in_flight), timeout=_SILENCE_SECONDS)
            for call in finished:
                task = self._in_flight.pop(call)
                count = ray.get(call)
                self._answering.add(task.worker)
                if task.shard is not None and task.shard in self._unfinished:
                    del self._unfinished[task.shard]
                    self._tracker.advance(count)
            if not finished:
                self._doubt()
            self._feed()

    def _doubt(self) -> None:
        asked = {task.worker for task in self._in_flight.values() if task.shard is None}
        self._answering -= asked
        for task in self._in_flight.values():
            late = task.worker in asked and task.shard in self._unfinished
            if late and task.shard is not None and task.shard not in self._queue:
                self._queue.append(task.shard)
        for worker in self._answering - asked:
            self._ask(worker)

    def _ask(self, worker: int) -> None:
        self._in_flight[self._workers[worker].ready.remote()] = _Task(worker, None)

    def _feed(self) -> None:
        """Hand out queued shards, evenly, to workers that answer and have room."""
        loads = dict.fromkeys(self._answering, 0)
        for task in self._in_flight.values():
            if task.shard is not None and task.worker in loads:
                loads[task.worker] += 1
        while self._queue and loads:
            worker = min(loads, key=lambda w: loads[w])
            if loads[worker] >= _SHARDS_PER_WORKER:
                return
            shard = self._queue.popleft()
            if shard in self._unfinished:
                loads[worker] += 1
                call = self._workers[worker].embed.remote(self._unfinished[shard])
                self._in_flight[call] = _Task(worker, shard)
