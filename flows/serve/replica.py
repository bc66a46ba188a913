"""The deployment: one model in memory, images in, labelled instances out; always the version that the alias names."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from numpy.typing import NDArray
from ray import serve

from flows.http.errors import HttpError, busy
from flows.runtime.device import device_of_worker
from flows.runtime.log_format import add_context, is_json
from flows.runtime.logs import set_up_logging
from flows.serve.alias_poller import AliasPoller
from flows.serve.answered import Answered
from flows.serve.answers import ReplicaView, slot_view
from flows.serve.canary import Canary
from flows.serve.canary_control import CanaryControl, request_key
from flows.serve.found import Found, find
from flows.serve.keeper import Keeper
from flows.serve.metrics import Metrics, environment
from flows.serve.model_slot import ModelSlot
from flows.serve.replica_status import ReplicaStatus, read_replicas
from flows.serve.routes import SINGLE, line_of
from flows.serve.settings import ReplicaCount, Settings
from flows.serve.shadow import Shadow
from flows.serve.versions import Part, Source, Version
from samif.dataset.images import ImageError, read_image
from samif.errors import OutOfMemory
from samif.inference.segment import Instances

DECODERS = 2
"""Images that are decoded at once."""
TARGET_REQUESTS = 2.0
"""Per image of a batch, where the number of replicas follows the load: one in work, and one that waits."""


@dataclass
class Job:
    """One image on its way: `score` is the least score asked for, none means the model's own; `body` its file, where
    answers are kept; `key` decides which version answers, where there is a canary."""

    image: NDArray[np.uint8]
    score: float | None
    body: bytes = b""
    key: bytes = b""
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Outcome:
    """Instances, the version that found them, and seconds per part."""

    instances: Instances
    version: Version
    seconds: dict[str, float]


class Replica:
    """One copy of the model, and the poller that keeps it at the live version."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        if is_json():
            set_up_logging()
        self.settings = settings
        self.status = ReplicaStatus(settings.state)
        self.metrics = Metrics(settings.state, self.status.id)
        self.name = serve.get_replica_context().replica_tag
        self._loads: Counter[str] = Counter()
        self._publishing, self._published = threading.Lock(), dict[str, Any]()
        self._swaps: Counter[str] = Counter()
        self._failures: dict[str, object] = {}
        source = Source(settings, self._count_load, device_of_worker())
        self.champion = ModelSlot(source, settings.ref, on_change=self._changed)
        self.challenger: ModelSlot | None = None
        self.shadow: Shadow | None = None
        self._start()
        if settings.shadow is not None:
            self.challenger = ModelSlot(source, settings.shadow.ref, lambda: self.champion.state.live, self._changed)
            self.shadow = Shadow(self.challenger, settings.shadow, self.metrics)
        self.keeper = Keeper(settings.keep, self.metrics) if settings.keep else None
        self._worker = ThreadPoolExecutor(1, "segment")
        self.canary = self._canary(source) if settings.canary is not None else None
        self._decoders = ThreadPoolExecutor(DECODERS, "decode")
        self._poller = AliasPoller(self._poll, settings.interval, settings.refresh_request)
        self._work.set_max_batch_size(settings.batch)  # type: ignore[attr-defined]
        self._publish()
        self._poller.start()

    def _canary(self, source: Source) -> Canary:
        wanted, state = self.settings.canary, self.settings.state
        assert wanted is not None
        control = CanaryControl(source, wanted, state, self.status.id, lambda: self.champion.state.live, self._changed)
        most_seconds = self.settings.limits.work_seconds / 3.0
        return Canary(control, self.metrics, most_seconds, lambda call: self._worker.submit(call))

    def _start(self) -> None:
        """Load the model. With `wait_for_model`, and no other replica that has one, a failure is no error."""
        if self.settings.wait_for_model and not any(
            view["champion"]["live"] for view in read_replicas(self.settings.state)
        ):
            self.champion.poll()
        else:
            self.champion.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        from flows.serve.app import build_app

        return build_app(self)

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that no longer polls the alias."""
        if not self._poller.alive:
            raise RuntimeError("the alias poller has ended")

    def __del__(self) -> None:
        if hasattr(self, "_poller"):
            self._poller.stop()

    def check_loaded(self) -> None:
        """Raise HttpError (503) while there is no model."""
        if self.champion.state.live is None:
            raise busy("no model is loaded yet, /v1/model says why; try again in a second")

    async def segment(self, body: bytes, score: float | None, part: str | None = None) -> Outcome:
        """An image file's bytes -> what is in it; `part` is the id of what it shows, if the client gave one.

        Raises:
            HttpError: 422, it cannot be read.
        """
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        image = await loop.run_in_executor(self._decoders, self._decode, body)
        decoded = time.perf_counter()
        key = await loop.run_in_executor(self._decoders, request_key, body, part) if self.canary else b""
        outcome: Outcome = await self._work(Job(image, score, body if self.keeper else b"", key))
        seconds = {"decode": decoded - began} | outcome.seconds
        for name, value in seconds.items():
            self.metrics.seconds.labels(name).observe(value)
        return Outcome(outcome.instances, outcome.version, seconds)

    def view(self) -> ReplicaView:
        """The state of this replica; `ReplicaStatus` adds id, process id and start time."""
        return ReplicaView(
            id="",
            pid=0,
            started=0.0,
            replica=self.name,
            champion=slot_view(self.champion),
            challenger=slot_view(self.challenger) if self.challenger else None,
            canary=self.canary.control.view() if self.canary else None,
            loads=dict(self._loads),
            shadow=dict(self.shadow.counts) if self.shadow else {},
            kept=dict(self.keeper.counts) if self.keeper else {},
            keep_problem=self.keeper.problem if self.keeper else None,
        )

    def _decode(self, body: bytes) -> NDArray[np.uint8]:
        # Through a file, because that is how every other command reads an image.
        with tempfile.NamedTemporaryFile(dir=self.settings.state, prefix="upload-") as file:
            file.write(body)
            file.flush()
            try:
                return read_image(Path(file.name), self.settings.limits.pixels)
            except ImageError as error:
                what = error.what.replace(file.name, "it")
                raise HttpError(422, "image", f"the image {what}; {error.remedy}") from None
            except OutOfMemory:
                raise busy("this machine is out of memory or open files for the moment; try again") from None

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=0.0)
    async def _work(self, jobs: list[Job]) -> list[Outcome]:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._segment, jobs)

    def _segment(self, jobs: list[Job]) -> list[Outcome]:
        version = self.champion.state.live  # once: these images are this version's from here on
        assert version is not None
        start = time.perf_counter()
        embedded = version.segmenter.embed([job.image for job in jobs])
        encode = (time.perf_counter() - start) / len(jobs)
        outcomes = []
        for job, seen in zip(jobs, embedded, strict=True):
            begun = time.perf_counter()
            if self.canary is None:
                found = find(version, job.image, seen)
            else:
                found = self.canary.answer(job.image, job.key, seen, encode, version)
            least = found.version.segmenter.default_score if job.score is None else job.score
            shown = found.instances.above(least)
            seconds = {"wait": start - job.began, "encode": encode, "segment": time.perf_counter() - begun}
            outcomes.append(Outcome(shown, found.version, seconds))
            self.metrics.answers.labels(found.version.name, str(found.version.number or 0)).inc()
            self._offer(job, found, shown, least)
        return outcomes

    def _offer(self, job: Job, found: Found, shown: Instances, least: float) -> None:
        answered = Answered(job.image, found.proposals, found.version, shown, least, job.body)
        for after in (self.shadow, self.keeper):
            if after is not None:
                after.offer(answered)

    def _poll(self) -> None:
        self.champion.poll()
        if self.challenger is not None and self.champion.state.live is not None:
            self.challenger.poll()
        if self.canary is not None:
            self.canary.control.poll()
            self.metrics.canary_running.set(self.canary.control.view().state == "running")
        for name, slot in self._slots().items():
            self.metrics.behind.labels(name).set(slot.behind)
            self.metrics.unreachable.labels(name).set(slot.registry_error is not None)
        self._publish()

    def _slots(self) -> dict[str, ModelSlot]:
        return {"champion": self.champion} | ({"challenger": self.challenger} if self.challenger else {})

    def _count_load(self, part: Part) -> None:
        self._loads[part] += 1
        self.metrics.loads.labels(part).inc()

    def _changed(self, slot: ModelSlot) -> None:
        name = next((name for name, known in self._slots().items() if known is slot), "canary")
        state = slot.state
        if state.live is not None:
            if slot is self.champion:
                add_context(version=state.live.title)
            self.metrics.live.labels(name, state.live.name, self.name).set(state.live.number or 0)
        self.metrics.swaps.labels(name).inc(state.swaps - self._swaps[name])
        self._swaps[name] = state.swaps
        if slot.failure is not None and slot.failure.at != self._failures.get(name):
            self._failures[name] = slot.failure.at
            self.metrics.failures.labels(name).inc()
        self._publish()

    def _publish(self) -> None:
        if hasattr(self, "_poller"):  # not before it can answer
            with self._publishing:
                content = self.view().model_dump(mode="json", exclude={"id", "pid", "started"})
                if content != self._published:
                    self.status.publish(content)
                    self._published = content


def deployment(settings: Settings, count: ReplicaCount, cpus: float, gpus: float) -> Any:
    """The application of a line for `serve.run`; CPUs and GPUs are those of each replica."""
    served = serve.deployment(
        name=line_of(settings.ref) or SINGLE,
        max_ongoing_requests=4 * settings.limits.queue,  # our own limit answers in our own words first
        ray_actor_options={
            "num_cpus": cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": environment(settings.state)},
        },
        health_check_period_s=5,
        graceful_shutdown_timeout_s=10,
        **_scaling(count, settings.batch),
    )(serve.ingress()(Replica))
    return served.bind(settings)


def _scaling(count: ReplicaCount, batch: int) -> dict[str, Any]:
    if count.least == count.most:
        return {"num_replicas": count.least}
    target = count.target or TARGET_REQUESTS * batch
    limits = {"min_replicas": count.least, "initial_replicas": count.least, "max_replicas": count.most}
    return {"autoscaling_config": limits | {"target_ongoing_requests": target}}
