"""Two ways of doing one thing, timed in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Comparison:
    """Seconds of each way, median over rounds, and the ratio other / ours pair by pair (min, median, max)."""

    name: str
    other: str
    ours_s: float
    other_s: float
    ratio: tuple[float, float, float]
    note: str


def compare(
    name: str, ours: Callable[[], object], other: Callable[[], object], against: str, note: str, rounds: int = 7
) -> Comparison:
    """Run both once to warm up, then in turn `rounds` times."""
    ours()
    other()
    return summarise(name, against, [(timed(ours)[1], timed(other)[1]) for _ in range(rounds)], note)


def summarise(name: str, against: str, pairs: Sequence[tuple[float, float]], note: str) -> Comparison:
    """Of seconds (ours, other) that were taken in turn."""
    ratios = sorted(other / ours for ours, other in pairs)
    return Comparison(
        name,
        against,
        statistics.median(ours for ours, _ in pairs),
        statistics.median(other for _, other in pairs),
        (ratios[0], statistics.median(ratios), ratios[-1]),
        note,
    )


def timed(action: Callable[[], Answer]) -> tuple[Answer, float]:
    """What an action returns, and its seconds."""
    started = time.perf_counter()
    answer = action()
    return answer, time.perf_counter() - started
