"""Streams of observations of a canary, by what is wrong with it, and when the checks stop them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samif.watch.canary import BOUNDS, CHANGED, CONFIDENCE, ERRORS, LATENCY, LIMIT, NAMED, TAIL, UNKNOWNS
from samif.watch.sequential import log_steps, mean_log_stake

Streams = NDArray[np.float64]
"""Observations (B, N) in 0..1 of B streams of N requests."""

LARGE: dict[str, tuple[str, float, float]] = {
    "every third request fails": (ERRORS, 0.33, 0.0),
    "slower than 1.5 times in 85 % of the images": (LATENCY, 0.85, 0.0),
    "slower than 3 times in 55 % of the images": (TAIL, 0.55, 0.0),
    "half of the named objects are lost": (NAMED, 0.75, 0.15),
    "75 % of the names differ": (CHANGED, 0.75, 0.2),
    "a margin smaller by 0.3": (CONFIDENCE, 0.8, 0.15),
    "a share of unknown objects larger by 0.4": (UNKNOWNS, 0.9, 0.1),
}
"""A large effect in words -> check, mean and standard deviation of its observations; 0 for yes or no."""
EQUAL = {ERRORS: 0.002, LATENCY: 0.2, TAIL: 0.03, NAMED: 0.5, CHANGED: 0.15, CONFIDENCE: 0.5, UNKNOWNS: 0.5}
"""Mean observations of a version of equal quality on a busy machine."""


def draw(rng: np.random.Generator, check: str, mean: float, spread: float, shape: tuple[int, int]) -> Streams:
    """Observations of a check: yes or no with probability `mean`, or beta distributed."""
    if check in (ERRORS, LATENCY, TAIL) or spread == 0.0:
        return (rng.random(shape) < mean).astype(np.float64)
    weight = mean * (1.0 - mean) / spread**2 - 1.0
    return np.asarray(rng.beta(mean * weight, (1.0 - mean) * weight, shape))


def stopped_at(check: str, streams: Streams) -> NDArray[np.int64]:
    """The request (from 1) at which each stream (B, N) is stopped by a check; N + 1 where it is not."""
    stakes = mean_log_stake(np.cumsum(log_steps(streams, BOUNDS[check]), axis=1)) >= LIMIT
    return np.where(stakes.any(axis=1), stakes.argmax(axis=1) + 1, streams.shape[1] + 1)
