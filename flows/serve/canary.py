"""A canary answers a share of the requests; a request that it fails is answered by the champion, and what it answers is
compared with what the champion finds in the same image."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flows.serve.canary_control import CanaryControl
from flows.serve.found import Found, find
from flows.serve.metrics import Metrics
from flows.serve.versions import Version
from samif.inference.segment import Embedded
from samif.watch.observe import observe
from samif.watch.paired import differences, latency, outcome

PATIENCE, PAUSE = 10.0, 1.0
"""The champion answers where the canary takes so many times as long, and so many seconds more."""

Outcome = Literal["answered", "failed", "late"]
OBSERVED = {
    "answered": outcome(failed=False),
    "failed": outcome(failed=True),
    "late": outcome(failed=False) | latency(math.inf, 1.0),
}

logger = logging.getLogger(__name__)


class Canary:
    """The canary of a replica, for its one worker.

    Args:
        most_seconds: longest time for an answer of the canary; the champion needs what is left of a request's time.
        later: runs a call on the worker after the request that it works on, so that both versions are timed there.
    """

    def __init__(
        self,
        control: CanaryControl,
        metrics: Metrics,
        most_seconds: float,
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self.control = control
        self._metrics, self._most_seconds, self._later = metrics, most_seconds, later
        self._champion_seconds: float | None = None
        self._thread = ThreadPoolExecutor(1, "canary")
        self._at_work: tuple[Version, Future[Found]] | None = None

    def answer(
        self, image: NDArray[np.uint8], key: bytes, seen: Embedded, encode_seconds: float, champion: Version
    ) -> Found:
        """The answer to a request, of the canary where it is its share.

        Args:
            image: (H, W, 3) uint8 RGB.
            key: see `flows.serve.canary_control.request_key`.
            seen: the champion's embedding of the image, which took `encode_seconds`.
        """
        version = self.control.version_for(key)
        if version is None:
            return self._by_champion(image, seen, encode_seconds, champion)
        shared = _same_encoders(version, champion)
        tried = self._tried(version, image, seen if shared else None)
        if isinstance(tried, Found):
            self._count(version, "answered")
            self._later(partial(self._compare, image, seen, 0.0 if shared else encode_seconds, champion, tried))
            return tried
        found = self._by_champion(image, seen, encode_seconds, champion)  # fails too where the image is to blame
        self._count(version, tried)
        return found

    def _tried(self, version: Version, image: NDArray[np.uint8], seen: Embedded | None) -> Found | Outcome:
        """What the canary finds, or that it fails, takes too long, or is still at an earlier image."""
        if self._at_work is not None and not self._at_work[1].done():
            if self._at_work[0] is version:
                return "late"
            self._thread = ThreadPoolExecutor(1, "canary")  # the earlier version may never end
        future = self._thread.submit(find, version, image, seen)
        self._at_work = version, future
        try:
            done, _ = wait([future], self._limit)
            return future.result() if done else "late"
        except Exception:
            logger.warning("the canary %s failed a request", version.title, exc_info=True)
            return "failed"

    def _by_champion(self, image: NDArray[np.uint8], seen: Embedded, encode_seconds: float, champion: Version) -> Found:
        found = find(champion, image, seen)
        self._champion_seconds = found.seconds + encode_seconds
        return found

    @property
    def _limit(self) -> float:
        if self._champion_seconds is None:
            return self._most_seconds
        return min(self._most_seconds, PAUSE + PATIENCE * self._champion_seconds)

    def _count(self, version: Version, what: Outcome) -> None:
        self._metrics.canary.labels(what).inc()
        self.control.add(version, OBSERVED[what], requests=1)

    def _compare(
        self, image: NDArray[np.uint8], seen: Embedded, encode_seconds: float, champion: Version, found: Found
    ) -> None:
        try:
            other = find(champion, image, seen)
            canary, instead = (_values(each, seen, image) for each in (found, other))
            shared = set(found.version.segmenter.classifier.classes) & set(champion.segmenter.classifier.classes)
            differing = differences(canary, instead, shared)
            self.control.add(found.version, latency(found.seconds, other.seconds + encode_seconds) | differing)
            self._metrics.canary.labels("compared").inc()
        except Exception:  # it is answered; promotion counts the comparisons
            logger.warning("an answer of the canary %s is not compared", found.version.title, exc_info=True)


def _values(found: Found, seen: Embedded, image: NDArray[np.uint8]) -> dict[str, float]:
    segmenter = found.version.segmenter
    size = (image.shape[0], image.shape[1])
    return observe(found.proposals, seen.embedding, size, segmenter.classifier, segmenter.evaluate_params).values


def _same_encoders(version: Version, champion: Version) -> bool:
    """Whether both share their encoders in memory, and so an embedding."""
    ours, theirs = version.segmenter, champion.segmenter
    return ours.encoder is theirs.encoder and ours.semantic is theirs.semantic
