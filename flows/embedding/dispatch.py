"""Shards to workers of a Ray cluster: who gets what, and what happens when one dies."""

from __future__ import annotations

import functools
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.artifacts.quarantine import Quarantined
from flows.embedding.encoder import EncoderFactory
from flows.embedding.shard_encoder import Shard, ShardEncoder, ShardOutcome
from flows.runtime.device import device_of_worker
from flows.runtime.progress import Tracker
from flows.runtime.ray_cluster import Cluster
from flows.runtime.tuning import keep_freed_memory
from flows.store import EmbeddingStore
from samif.errors import SamifError

_SHARDS_PER_WORKER = 2
"""In flight: while one is encoded, the next is decoded or the last one written."""
_VAIN_DEATHS = 5
"""So many deaths for each worker, and no shard finished between them, end the run. One image that kills its reader
costs three before the first half that is free of it is finished."""
_SPLITTING_DEATHS, _CONDEMNING_DEATHS = 2, 3
"""Of workers that had a shard in hand: then it is split; a single image is then set aside."""
_SILENCE_SECONDS = 10.0
"""When no shard is finished for so long, workers are asked whether they live."""
_SILENCES_TOLD = 6


class _Worker:
    """The Ray actor: one encoder, loaded at the first call so that what goes wrong reaches the caller."""

    def __init__(self, factory: EncoderFactory, digest: str, store: EmbeddingStore, batch_images: int) -> None:
        keep_freed_memory()
        self._factory, self._digest, self._store, self._batch = factory, digest, store, batch_images
        self._loading = threading.Lock()
        self._encoder: ShardEncoder | None = None

    def ready(self) -> None:
        """Returns when the encoder is loaded."""
        self._loaded()

    def embed(self, shard: Shard) -> ShardOutcome:
        try:
            return self._loaded().embed(shard)
        except SamifError as error:
            # Subclasses with arguments of their own do not survive pickling.
            raise SamifError(str(error)) from None

    def _loaded(self) -> ShardEncoder:
        with self._loading:
            if self._encoder is None:
                encoder = self._factory(device_of_worker())
                if encoder.digest != self._digest:
                    raise SamifError(
                        f"a worker loaded encoder '{encoder.name}' with digest {encoder.digest[:12]}, the run is for "
                        f"{self._digest[:12]}; put the same checkpoint on all machines of the cluster"
                    )
                self._encoder = ShardEncoder(encoder, self._store, self._batch)
            return self._encoder


def divide(images: Sequence[tuple[Path, str]], largest: int, workers: int) -> list[Shard]:
    """Shards of nearly equal size, none above `largest`, as many for each worker."""
    rounds = -(-len(images) // (largest * workers))
    count = min(len(images), rounds * workers)
    bounds = [len(images) * index // count for index in range(count + 1)]
    return [tuple(images[start:end]) for start, end in itertools.pairwise(bounds)]


class WorkerPool:
    """Equal workers on a Ray cluster that is connected. Each has one encoder and, where there are GPUs, one GPU."""

    def __init__(
        self,
        cluster: Cluster,
        count: int,
        factory: EncoderFactory,
        digest: str,
        store: EmbeddingStore,
        batch_images: int,
    ) -> None:
        import ray

        actor = ray.remote(_Worker).options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,  # the dispatch replaces a dead one, as long as there is progress
            max_task_retries=-1,  # what Ray takes for a lost connection is repeated
            max_concurrency=_SHARDS_PER_WORKER + 1,  # one more, to answer when asked whether it lives
        )
        self._start = functools.partial(actor.remote, factory, digest, store, batch_images)
        self._workers: list[Any] = [self._start() for _ in range(count)]

    def wait_until_ready(self) -> None:
        """Returns when every worker has loaded its encoder."""
        import ray

        ray.get([worker.ready.remote() for worker in self._workers])

    def embed(self, shards: Sequence[Shard], tracker: Tracker) -> list[Quarantined]:
        """Have the shards embedded; returns when all are committed. The pool is then of no more use.

        Returns:
            The images that could not be read.

        Raises:
            SamifError: a worker refused, or workers die and nothing is finished.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return _Dispatch(shards, self._workers, self._start, tracker).run()
        except RayTaskError as error:
            if isinstance(error.cause, SamifError):
                raise SamifError(str(error.cause)) from None
            raise
        except RayError as error:
            reason = str(error).strip().split("\n")[0]
            raise SamifError(
                f"embedding workers keep dying ({reason}); finished shards are kept: lower 'embed.batch_images' "
                "or 'embed.workers' in params.yaml if memory ran out, then rerun 'samif run'"
            ) from None
        finally:
            # A worker ends when no handle to it is left; killing it would print Ray's alarm about what it had begun.
            self._workers.clear()


@dataclass
class _Task:
    """A call in flight; `shard` is an index, or None where a worker was asked whether it is ready."""

    slot: int
    worker: Any
    shard: int | None


class _Dispatch:
    """Gives shards to workers that answer, a few at a time, until all are done.

    A worker that dies is replaced, and the shards that it had in hand are suspects: they are given out last, each
    alone, and halved where a worker dies again, until the one image is found that no decoder survives. A worker
    whose node is gone may only fall silent: its shards are given to others as well. Twice the same shard is harmless.
    """

    def __init__(self, shards: Sequence[Shard], workers: list[Any], start: Callable[[], Any], tracker: Tracker) -> None:
        self._workers = workers
        self._start = start
        self._tracker = tracker
        self._unfinished = dict(enumerate(shards))
        self._queue = deque(self._unfinished)
        self._suspects: deque[int] = deque()
        self._indexes = itertools.count(len(shards))
        self._in_flight: dict[Any, _Task] = {}
        self._answering: set[int] = set()
        self._deaths: Counter[int] = Counter()
        self._vain_deaths = 0
        self._silences = 0
        self._quarantined: list[Quarantined] = []
        self._said: set[str] = set()

    def run(self) -> list[Quarantined]:
        import ray

        for slot in range(len(self._workers)):
            self._ask(slot)
        while self._unfinished:
            finished, _ = ray.wait(list(self._in_flight), timeout=_SILENCE_SECONDS)
            for call in finished:
                self._take(call)
            if not finished:
                self._doubt()
            self._feed()
        return self._quarantined

    def _take(self, call: Any) -> None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        task = self._in_flight.pop(call)
        try:
            outcome: ShardOutcome | None = ray.get(call)
        except (RayActorError, OutOfMemoryError):
            self._suspect(task.shard)
            if task.worker is self._workers[task.slot]:
                self._vain_deaths += 1
                if self._unfinished and self._vain_deaths >= _VAIN_DEATHS * len(self._workers):
                    raise
                self._workers[task.slot] = self._start()
                self._answering.discard(task.slot)
                self._ask(task.slot)
            return
        if task.worker is self._workers[task.slot]:
            self._answering.add(task.slot)
        if outcome is not None and task.shard is not None and task.shard in self._unfinished:
            self._vain_deaths = 0
            self._finish(task.shard, outcome)

    def _suspect(self, shard: int | None) -> None:
        """A worker died with this shard in hand."""
        if shard is None or shard not in self._unfinished:
            return
        self._deaths[shard] += 1
        images = self._unfinished[shard]
        if len(images) > 1 and self._deaths[shard] >= _SPLITTING_DEATHS:
            del self._unfinished[shard]
            for part in (images[: len(images) // 2], images[len(images) // 2 :]):
                index = next(self._indexes)
                self._unfinished[index], self._deaths[index] = part, 1
                self._suspects.append(index)
        elif self._deaths[shard] >= _CONDEMNING_DEATHS:
            path, sha256 = images[0]
            reason, remedy = "ends every worker that reads it", "save it anew as an RGB JPEG or PNG"
            self._finish(shard, ShardOutcome(1, (Quarantined(path, sha256, reason, remedy),)))
        elif shard not in self._suspects:
            self._suspects.append(shard)

    def _finish(self, shard: int, outcome: ShardOutcome) -> None:
        del self._unfinished[shard]
        self._quarantined += outcome.quarantined
        self._tracker.quarantine(len(outcome.quarantined))
        self._tracker.advance(outcome.images)
        for note in set(outcome.notes) - self._said:
            self._tracker.note(note)
        self._said.update(outcome.notes)

    def _give_back(self, shard: int) -> None:
        if shard in self._unfinished and shard not in self._queue and shard not in self._suspects:
            self._queue.append(shard)

    def _doubt(self) -> None:
        self._silences += 1
        if not self._answering and self._silences == _SILENCES_TOLD:
            self._tracker.note("no worker answers; perhaps the cluster has no room for one")
        asked = {task.slot for task in self._in_flight.values() if task.shard is None}
        self._answering -= asked
        in_hand = {task.shard for task in self._in_flight.values() if task.slot in self._answering}
        for task in self._in_flight.values():
            if task.slot in asked and task.shard is not None and task.shard not in in_hand:
                self._give_back(task.shard)
        for slot in self._answering - asked:
            self._ask(slot)

    def _ask(self, slot: int) -> None:
        worker = self._workers[slot]
        self._in_flight[worker.ready.remote()] = _Task(slot, worker, None)

    def _feed(self) -> None:
        """Hand out queued shards, evenly, to workers that answer and have room; then suspects to idle ones, alone."""
        hands: dict[int, list[int]] = {slot: [] for slot in self._answering}
        for task in self._in_flight.values():
            if task.shard is not None and task.slot in hands and task.worker is self._workers[task.slot]:
                hands[task.slot].append(task.shard)
        hands = {slot: held for slot, held in hands.items() if not any(map(self._deaths.get, held))}
        for queue, room in ((self._queue, _SHARDS_PER_WORKER), (self._suspects, 1)):
            while queue and hands:
                slot = min(hands, key=lambda slot: len(hands[slot]))
                if len(hands[slot]) >= room:
                    break
                shard = queue.popleft()
                if shard in self._unfinished:
                    hands[slot].append(shard)
                    worker = self._workers[slot]
                    self._in_flight[worker.embed.remote(self._unfinished[shard])] = _Task(slot, worker, shard)
