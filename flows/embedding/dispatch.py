"""Assignment of shards to workers of a Ray cluster, and recovery when a worker dies."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from flows.artifacts.quarantine import Quarantined
from flows.embedding.encoder import EncoderFactory
from flows.embedding.shard_encoder import ShardEncoder, ShardOutcome
from flows.embedding.shards import Shard
from flows.runtime.cost import WORKERS, UsageMeter
from flows.runtime.device import device_of_worker
from flows.runtime.progress import Tracker
from flows.runtime.ray_cluster import Cluster, picklable
from flows.store import EmbeddingStore
from samif.errors import IntegrityError, SamifError, ServiceUnavailable

logger = logging.getLogger(__name__)

_SHARDS_PER_WORKER = 2
"""Shards in flight: while one is encoded, the next is decoded or the previous one written."""
MAX_DEATHS_WITHOUT_PROGRESS = 5
"""Deaths per worker without a finished shard in between that end the run. One image that kills its reader costs three
before the first half without it is finished."""
DEATHS_BEFORE_SPLIT, DEATHS_BEFORE_QUARANTINE = 2, 3
"""Deaths of workers that processed a shard: then it is split; a shard of one image is then quarantined."""
LIVENESS_SECONDS = 10.0
"""Workers are pinged when no shard was finished for this time."""
_CHECKS_BEFORE_NOTE = 6


class EmbeddingWorker:
    """The Ray actor: one encoder, loaded by the first call so that errors reach the caller. Ray's dashboard and logs
    show its class, its `repr` and the names of its calls."""

    def __init__(
        self, name: str, factory: EncoderFactory, digest: str, store: EmbeddingStore, batch_images: int
    ) -> None:
        self._name = name
        self._factory, self._digest, self._store, self._batch = factory, digest, store, batch_images
        self._loading, self._usage = threading.Lock(), UsageMeter()
        self._encoder: ShardEncoder | None = None

    def __repr__(self) -> str:
        return f"EmbeddingWorker({self._name})"

    def ready(self) -> None:
        """Returns when the encoder is loaded."""
        self._loaded()

    def embed(self, shard: Shard) -> ShardOutcome:
        try:
            outcome = self._loaded().embed(shard)
            return replace(outcome, usage=self._usage.read())
        except SamifError as error:
            raise picklable(error) from None

    def _loaded(self) -> ShardEncoder:
        with self._loading:
            if self._encoder is None:
                encoder = self._factory(device_of_worker())
                if encoder.digest != self._digest:
                    raise IntegrityError(
                        f"a worker loaded encoder '{encoder.name}' with digest {encoder.digest[:12]}, the run is for "
                        f"{self._digest[:12]}; put the same checkpoint on all machines of the cluster"
                    )
                self._encoder = ShardEncoder(encoder, self._store, self._batch)
            return self._encoder


class WorkerPool:
    """Equal workers on a connected Ray cluster, each with one encoder and, if there are GPUs, one GPU.

    Args:
        name: of the encoder, for the names of the workers.
    """

    def __init__(
        self,
        cluster: Cluster,
        count: int,
        factory: EncoderFactory,
        digest: str,
        store: EmbeddingStore,
        batch_images: int,
        name: str,
    ) -> None:
        import ray

        actor = ray.remote(EmbeddingWorker)
        pool, numbers = uuid4().hex[:8], itertools.count(1)

        def start() -> Any:
            # a dead worker may still hold its name, so each has its own
            named = actor.options(
                name=f"embed {name} {next(numbers)} ({pool})",
                num_cpus=cluster.cpus_per_worker,
                num_gpus=cluster.gpus_per_worker,
                max_restarts=0,  # `_Dispatch` replaces a dead worker while there is progress
                max_task_retries=-1,  # calls are repeated when Ray assumes a lost connection
                max_concurrency=_SHARDS_PER_WORKER + 1,  # one more, to answer pings
            )
            return named.remote(name, factory, digest, store, batch_images)

        self._start, self._gpus = start, count * cluster.gpus_per_worker
        self._workers: list[Any] = [start() for _ in range(count)]

    def embed(self, shards: Sequence[Shard], tracker: Tracker) -> list[Quarantined]:
        """Embed the shards; returns when all are committed. The pool cannot be used again.

        Returns:
            The images that could not be read.

        Raises:
            ServiceUnavailable: workers die and no shard is finished.
            SamifError: the error that a worker raised.
        """
        from ray.exceptions import RayError, RayTaskError

        started = time.monotonic()
        try:
            return _Dispatch(shards, self._workers, self._start, tracker).run()
        except RayTaskError as error:
            if isinstance(error.cause, SamifError):
                raise picklable(error.cause) from None
            raise
        except RayError as error:
            reason = str(error).strip().split("\n")[0]
            raise ServiceUnavailable(
                f"embedding workers keep dying ({reason}); lower 'embed.batch_images' or 'embed.workers' in "
                "params.yaml if memory ran out, then run 'samif run' again; finished shards are kept"
            ) from None
        finally:
            WORKERS.hold_gpus(time.monotonic() - started, self._gpus)
            # A worker ends when no handle to it is left; killing it would print a warning of Ray about its calls.
            self._workers.clear()


@dataclass
class _Task:
    """A call in flight; `shard` is an index, or None for a ping."""

    slot: int
    worker: Any
    shard: int | None


class _Dispatch:
    """Assigns shards to workers that answer, a few at a time, until all are finished.

    A worker that dies is replaced, and the shards that were assigned to it are suspects: they are assigned last, one at
    a time, and split if a worker dies again, until the image is found that kills its reader. If a node is lost, its
    worker may only stop to answer: its shards are then assigned to other workers too. Embedding a shard twice is safe.
    """

    def __init__(self, shards: Sequence[Shard], workers: list[Any], start: Callable[[], Any], tracker: Tracker) -> None:
        self._workers = workers
        self._start = start
        self._tracker = tracker
        self._shards = shards
        self._unfinished = set(range(len(shards)))
        self._parts: dict[int, Shard] = {}  # of shards that were split
        self._queue = deque(range(len(shards)))
        self._suspects: deque[int] = deque()
        self._indexes = itertools.count(len(shards))
        self._in_flight: dict[Any, _Task] = {}
        self._answering: set[int] = set()
        self._deaths: Counter[int] = Counter()
        self._deaths_without_progress = 0
        self._checks = 0
        self._quarantined: list[Quarantined] = []
        self._noted: set[str] = set()

    def run(self) -> list[Quarantined]:
        import ray

        for slot in range(len(self._workers)):
            self._ping(slot)
        while self._unfinished:
            finished, _ = ray.wait(list(self._in_flight), timeout=LIVENESS_SECONDS)
            for call in finished:
                self._collect(call)
            if not finished:
                self._check_liveness()
            self._feed()
        return self._quarantined

    def _collect(self, call: Any) -> None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        task = self._in_flight.pop(call)
        try:
            outcome: ShardOutcome | None = ray.get(call)
        except (RayActorError, OutOfMemoryError):
            logger.info("embedding worker %d died (shard %s)", task.slot, task.shard, exc_info=True)
            self._suspect(task.shard)
            if task.worker is self._workers[task.slot]:
                self._deaths_without_progress += 1
                if self._unfinished and self._deaths_without_progress >= MAX_DEATHS_WITHOUT_PROGRESS * len(
                    self._workers
                ):
                    raise
                self._workers[task.slot] = self._start()
                self._answering.discard(task.slot)
                self._ping(task.slot)
            return
        if outcome is not None and outcome.usage is not None:
            WORKERS.add(outcome.usage)
        if task.worker is self._workers[task.slot]:
            self._answering.add(task.slot)
        if outcome is not None and task.shard is not None and task.shard in self._unfinished:
            self._deaths_without_progress = 0
            self._finish(task.shard, outcome)

    def _suspect(self, shard: int | None) -> None:
        """A worker died while this shard was assigned to it."""
        if shard is None or shard not in self._unfinished:
            return
        self._deaths[shard] += 1
        images = self._images(shard)
        if len(images) > 1 and self._deaths[shard] >= DEATHS_BEFORE_SPLIT:
            self._unfinished.remove(shard)
            for part in (images[: len(images) // 2], images[len(images) // 2 :]):
                index = next(self._indexes)
                self._unfinished.add(index)
                self._parts[index], self._deaths[index] = part, 1
                self._suspects.append(index)
        elif self._deaths[shard] >= DEATHS_BEFORE_QUARANTINE:
            path, sha256 = images[0]
            reason, remedy = "kills every worker that reads it", "save it again as an RGB JPEG or PNG"
            self._finish(shard, ShardOutcome(1, (Quarantined(path, sha256, reason, remedy),)))
        elif shard not in self._suspects:
            self._suspects.append(shard)

    def _finish(self, shard: int, outcome: ShardOutcome) -> None:
        self._unfinished.remove(shard)
        self._quarantined += outcome.quarantined
        self._tracker.quarantine(len(outcome.quarantined))
        self._tracker.advance(outcome.images)
        for note in set(outcome.notes) - self._noted:
            self._tracker.note(note)
        self._noted.update(outcome.notes)

    def _images(self, shard: int) -> Shard:
        """Made when they are assigned, so that only the images of shards in flight are in memory."""
        return self._parts.get(shard) or self._shards[shard]

    def _requeue(self, shard: int) -> None:
        if shard in self._unfinished and shard not in self._queue and shard not in self._suspects:
            self._queue.append(shard)

    def _check_liveness(self) -> None:
        self._checks += 1
        if not self._answering and self._checks == _CHECKS_BEFORE_NOTE:
            self._tracker.note("no worker answers; the cluster may have no room for one")
        pinged = {task.slot for task in self._in_flight.values() if task.shard is None}
        self._answering -= pinged
        assigned = {task.shard for task in self._in_flight.values() if task.slot in self._answering}
        for task in self._in_flight.values():
            if task.slot in pinged and task.shard is not None and task.shard not in assigned:
                self._requeue(task.shard)
        for slot in self._answering - pinged:
            self._ping(slot)

    def _ping(self, slot: int) -> None:
        worker = self._workers[slot]
        self._in_flight[worker.ready.options(name="ready").remote()] = _Task(slot, worker, None)

    def _feed(self) -> None:
        """Assign queued shards evenly to workers that answer and have room; then suspects to idle workers, one each."""
        assigned: dict[int, list[int]] = {slot: [] for slot in self._answering}
        for task in self._in_flight.values():
            if task.shard is not None and task.slot in assigned and task.worker is self._workers[task.slot]:
                assigned[task.slot].append(task.shard)
        assigned = {slot: shards for slot, shards in assigned.items() if not any(map(self._deaths.get, shards))}
        for queue, room in ((self._queue, _SHARDS_PER_WORKER), (self._suspects, 1)):
            while queue and assigned:
                slot = min(assigned, key=lambda slot: len(assigned[slot]))
                if len(assigned[slot]) >= room:
                    break
                shard = queue.popleft()
                if shard in self._unfinished:
                    assigned[slot].append(shard)
                    worker, images = self._workers[slot], self._images(shard)
                    name = f"shard {shard + 1} of {len(self._shards)}: {len(images)} images"
                    call = worker.embed.options(name=name)
                    self._in_flight[call.remote(images)] = _Task(slot, worker, shard)
