"""From image files to a committed shard: decoding, encoding and writing overlap.

Shape legend: n images of a shard; C, h, w channels, height and width of an embedding.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from flows.artifacts.quarantine import Quarantined
from flows.embedding.encoder import Encoder
from flows.embedding.shards import Shard
from flows.runtime.cost import Usage
from flows.runtime.tuning import out_of_memory
from flows.store import EmbeddingStore
from samif.errors import OutOfMemory

if TYPE_CHECKING:
    import torch

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class ShardOutcome:
    """Result of embedding a shard.

    Attributes:
        images: number of images, all of them embedded or quarantined.
        quarantined: images that could not be read.
        notes: messages about the worker for a person.
        usage: what a worker has used since its last shard; none in this process.
    """

    images: int
    quarantined: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()
    usage: Usage | None = None


class ShardEncoder:
    """Turns shards of image files into shards of the store.

    `embed` may be called from several threads: one encodes while another decodes or writes.
    """

    def __init__(self, encoder: Encoder, store: EmbeddingStore, batch_images: int) -> None:
        import torch

        self._encoder = encoder
        self._namespace = store.namespace(encoder.digest, encoder.preprocessing_digest)
        # float16 halves memory and the copy from a GPU, but int8 is rounded from values beyond what float16 holds.
        self._buffer = torch.float16 if store.stored_as == "float16" else torch.float32
        self._batch = batch_images
        self._notes: list[str] = []
        self._encode_lock = threading.Lock()
        self._decoding = ThreadPoolExecutor(max(2, torch.get_num_threads()), "decode")
        # Always the same thread: each thread that computes gets its own OpenMP pool.
        self._encoding = ThreadPoolExecutor(1, "encode")

    def embed(self, shard: Shard, advance: Callable[[int], None] = lambda _: None) -> ShardOutcome:
        """Commit the shard unless the store has it; images that cannot be read are quarantined.

        Args:
            advance: called with the number of images that were encoded or quarantined since the last call.

        Raises:
            IntegrityError: an embedding is not finite.
            OutOfMemory: memory does not hold one image.
            ServiceUnavailable: the store cannot be written.
        """
        import torch

        names = [sha256 for _, sha256 in shard]
        if self._namespace.holds(self._namespace.shard_name(names)):
            advance(len(shard))
            return ShardOutcome(len(shard))
        images = _Prefetcher(self._decoding, self._prepare, shard, _BATCHES_AHEAD * self._batch)
        # One shard at a time: this one is written while the next one is encoded.
        with self._encode_lock:
            embeddings = torch.empty((len(shard), *self._encoder.embedding_shape), dtype=self._buffer)
            done: list[str] = []
            seen = 0
            prepared = iter(images)
            while batch := list(islice(prepared, self._batch)):
                embeddings[len(done) : len(done) + len(batch)] = self._encode([image for _, image in batch])
                done += [sha256 for sha256, _ in batch]
                advance(len(done) + len(images.quarantined) - seen)
                seen = len(done) + len(images.quarantined)
            advance(len(shard) - seen)
            notes, self._notes = tuple(self._notes), []
        if done:
            self._namespace.write(done, embeddings[: len(done)])
        return ShardOutcome(len(shard), tuple(images.quarantined), notes)

    def _prepare(self, path: Path, sha256: str) -> torch.Tensor | Quarantined:
        from samif.dataset.images import ImageError, read_image

        try:
            pixels = read_image(path, sha256=sha256)
        except ImageError as error:
            return Quarantined.of(path, sha256, error)
        return self._encoder.prepare(pixels)

    def _encode(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, C, h, w), in halves if memory does not hold the batch; later batches are then no larger."""
        import torch

        try:
            return self._encoding.submit(self._encoder.encode_prepared, batch, self._buffer).result()
        except RuntimeError as error:
            if out_of_memory(error) is None:
                raise
        # Outside the handler: the traceback keeps the tensors of the failed attempt in memory.
        if len(batch) == 1:
            raise OutOfMemory(
                f"memory does not hold encoder '{self._encoder.name}' and one image; "
                "give the worker a machine or GPU with more, or choose a smaller encoder"
            )
        torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        half = len(batch) // 2
        if half < self._batch:
            self._notes.append(f"memory ran out at {len(batch)} images at once; going on with {half}")
            self._batch = half
        return torch.cat([self._encode(batch[:half]), self._encode(batch[half:])])


class _Prefetcher:
    """Prepared images of a shard in order; up to `ahead` of them are prepared in advance."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        prepare: Callable[[Path, str], torch.Tensor | Quarantined],
        shard: Shard,
        ahead: int,
    ) -> None:
        self.quarantined: list[Quarantined] = []
        self._jobs: deque[tuple[str, Future[torch.Tensor | Quarantined]]] = deque()
        self._submissions = ((sha256, pool.submit(prepare, path, sha256)) for path, sha256 in shard)
        self._jobs.extend(islice(self._submissions, ahead))

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        while self._jobs:
            sha256, job = self._jobs.popleft()
            self._jobs.extend(islice(self._submissions, 1))
            image = job.result()
            if isinstance(image, Quarantined):
                self.quarantined.append(image)
            else:
                yield sha256, image
