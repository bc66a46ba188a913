"""When a canary is stopped: a challenger and the champion answer the same images, and each difference is a sequential
test (`samif.watch.sequential`).

A version may differ from the champion, and usually should. So each check has a bound that an acceptable version stays
below, and it is stopped once the observations refute that. All checks together stop a version that stays below all
bounds with probability FALSE_ALARM at most, over the whole canary (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from pydantic import Field

from samif.config.strict import Strict
from samif.watch.sequential import Evidence

FALSE_ALARM = 0.01
"""Probability that a version within all bounds is ever stopped."""
ENOUGH = 100
"""Requests to a canary within which a large effect is found (benchmarks/CANARY.md); before, it says little."""
SLOW, VERY_SLOW = 1.5, 3.0
"""Ratios of the seconds for one image, canary to champion."""

ERRORS, LATENCY, TAIL = "errors", "latency", "slow requests"
NAMED, CHANGED, CONFIDENCE, UNKNOWNS = "objects named", "names changed", "confidence", "unknown share"
BOUNDS = {
    ERRORS: 0.02,  # share of requests that it failed and the champion answered
    LATENCY: 0.5,  # share of images that took SLOW times as long: the median ratio is SLOW at most
    TAIL: 0.2,  # share of images that took VERY_SLOW times as long: so is the 80 % quantile
    NAMED: 0.6,  # 0.5 + half the relative loss of named objects: a loss of 20 %
    CHANGED: 0.4,  # share of the names of shared classes that only one of the two gives
    CONFIDENCE: 0.6,  # 0.5 + loss of the margin between best class and runner-up: a loss of 0.1
    UNKNOWNS: 0.7,  # 0.5 + rise of the share of unknown objects: a rise of 0.2
}
"""Check -> largest acceptable mean of its observations, each in 0..1."""
LIMIT = math.log(len(BOUNDS) / FALSE_ALARM)
"""Logarithm of the stake (`Evidence.log_stake`) at which a check stops the canary."""
SENTENCES = {
    ERRORS: "it failed {mean:.0%} of the requests that the champion answered",
    LATENCY: f"it took more than {SLOW:g} times as long as the champion for {{mean:.0%}} of the images",
    TAIL: f"it took more than {VERY_SLOW:g} times as long as the champion for {{mean:.0%}} of the images",
    NAMED: "it names {loss:.0%} fewer objects than the champion",
    CHANGED: "{mean:.0%} of the names differ from the champion's",
    CONFIDENCE: "its best class leads the runner-up by {shift:.2f} less than the champion's",
    UNKNOWNS: "its share of unknown objects is {shift:.2f} higher than the champion's",
}


class CanaryEvidence(Strict):
    """What is known of a canary.

    Attributes:
        requests: that it was given, answered or failed.
        checks: check -> evidence that the canary exceeds its bound.
    """

    requests: int = 0
    checks: dict[str, Evidence] = Field(default={})

    def after(self, observations: Mapping[str, float], requests: int = 0) -> CanaryEvidence:
        """With more observations by check, and so many more requests."""
        new = {name: self.checks.get(name, Evidence()).after(x, BOUNDS[name]) for name, x in observations.items()}
        return CanaryEvidence(requests=self.requests + requests, checks=self.checks | new)

    def __add__(self, other: CanaryEvidence) -> CanaryEvidence:
        """The evidence of two observers."""
        names = [name for name in BOUNDS if name in self.checks or name in other.checks]
        checks = {name: self.checks.get(name, Evidence()) + other.checks.get(name, Evidence()) for name in names}
        return CanaryEvidence(requests=self.requests + other.requests, checks=checks)

    @property
    def compared(self) -> int:
        """Number of requests whose answer was compared with the champion's."""
        return self.checks.get(LATENCY, Evidence()).count

    @property
    def reason(self) -> str | None:
        """Why the canary must be stopped, in one sentence; None while it may go on."""
        name = max(self.checks, key=lambda name: self.checks[name].log_stake, default=None)
        if name is None or self.checks[name].log_stake < LIMIT:
            return None
        mean = self.checks[name].mean
        return f"{name}: {SENTENCES[name].format(mean=mean, loss=2.0 * mean - 1.0, shift=mean - 0.5)}"

    @property
    def numbers(self) -> dict[str, float]:
        """The number of requests, and the mean observation by check, for a journal."""
        means = {name: round(found.mean, 4) for name, found in self.checks.items() if found.count}
        return {"requests": float(self.requests)} | means


def pooled(parts: Iterable[CanaryEvidence]) -> CanaryEvidence:
    """The evidence of several observers."""
    return sum(parts, CanaryEvidence())
