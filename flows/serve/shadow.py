"""The challenger beside the champion: its head scores the same proposals after the answer, and differences are kept."""

from __future__ import annotations

import os
import queue
import shutil
import threading
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.artifacts.disagreements import IMAGE, OVERLAY, RECORD, Difference, DisagreementRecord, Side
from flows.artifacts.kept_answers import Instance
from flows.serve.answered import Answered
from flows.serve.answers import instances_of
from flows.serve.disagreement import Disagreement, disagreements
from flows.serve.metrics import Metrics
from flows.serve.model_slot import ModelSlot
from flows.serve.settings import ShadowSettings
from flows.serve.versions import Version
from samif.inference.overlay import draw_instances
from samif.inference.segment import Instances, label

WAITING = 4
"""Images that wait for the shadow; what comes on top is left out and counted, so that it never holds up an answer."""
SAMPLE_SECONDS = 1.0
"""Least time between two kept images."""


class Shadow:
    """A thread that lets the version in `slot` score what was answered."""

    def __init__(self, slot: ModelSlot, settings: ShadowSettings, metrics: Metrics) -> None:
        self.counts: Counter[str] = Counter()
        self._slot, self._settings, self._metrics = slot, settings, metrics
        self._queue: queue.Queue[Answered] = queue.Queue(WAITING)
        self._samples: list[Path] = []
        self._sampled = 0.0
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def offer(self, answered: Answered) -> None:
        """Take an image, unless too many are waiting. Returns at once."""
        try:
            self._queue.put_nowait(answered)
        except queue.Full:
            self.counts["dropped"] += 1
            self._metrics.dropped.inc()

    def _run(self) -> None:
        while True:
            answered = self._queue.get()
            try:
                self._score(answered)
            except Exception as error:  # a challenger must never cost the line anything
                self.counts[f"error: {type(error).__name__}"] += 1

    def _score(self, answered: Answered) -> None:
        challenger = self._slot.state.live
        if challenger is None or not comparable(answered.champion, challenger):
            self.counts["not_comparable"] += 1
            return
        segmenter, said = challenger.segmenter, answered.said
        other = label(answered.proposals, segmenter.classifier, segmenter.evaluate_params, said.height, said.width)
        shown = other.resolved.above(answered.score)
        found = disagreements(said, shown)
        self.counts["images"] += 1
        self._metrics.shadowed.inc()
        for item in found:
            self.counts[item.kind] += 1
            self._metrics.disagreements.labels(item.kind).inc()
        if found:
            self.counts["images_with_disagreement"] += 1
            self._keep(answered, challenger, shown, found)

    def _keep(self, answered: Answered, challenger: Version, shown: Instances, found: list[Disagreement]) -> None:
        folder, now = self._settings.folder, time.monotonic()
        if folder is None or now - self._sampled < SAMPLE_SECONDS:
            return
        self._sampled = now
        sample = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}"
        sample.mkdir(parents=True)
        Image.fromarray(answered.image).save(sample / IMAGE, compress_level=1)
        sides = [_drawn(answered.image, instances) for instances in (answered.said, shown)]
        Image.fromarray(np.concatenate(sides, axis=1)).save(sample / OVERLAY, quality=90)
        DisagreementRecord(
            champion=_side(answered.champion, answered.said),
            challenger=_side(challenger, shown),
            disagreements=tuple(Difference(**asdict(item)) for item in found),
        ).save(sample / RECORD)
        self.counts["kept"] += 1
        self._samples.append(sample)
        if len(self._samples) > self._settings.samples:
            shutil.rmtree(self._samples.pop(0), ignore_errors=True)


def comparable(champion: Version, challenger: Version) -> bool:
    """Whether the challenger would have proposed the same, so that its head can score the champion's proposals."""
    parts = ("encoder", "decoder", "semantic")
    same = all(champion.digests.get(part) == challenger.digests.get(part) for part in parts)
    return same and champion.segmenter.propose_params == challenger.segmenter.propose_params


def _drawn(image: NDArray[np.uint8], instances: Instances) -> NDArray[np.uint8]:
    scores = [float(score) for score in instances.scores]
    return draw_instances(image, instances.masks, list(instances.labels), scores)


def _side(version: Version, said: Instances) -> Side:
    return Side(version=version.title, instances=tuple(Instance.model_validate(i) for i in instances_of(said)))
