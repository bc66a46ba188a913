"""Charts over a stream of pictures: exponentially weighted levels, held against limits.

Each statistic has a chart of its own (EWMA: Roberts 1959; Lucas and Saccucci 1990); the pooled embedding has one chart
over all of its directions (MEWMA: Lowry, Woodall, Champ and Rigdon 1992). Limits come from `samif.watch.calibrate`.

Shape legend: S statistics, D width of the pooled embedding, K directions that are watched of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samif.segment import UNKNOWN
from samif.watch.objects import ObjectSpace
from samif.watch.observe import MARGIN, STRANGE, Observation, vector

Array = NDArray[np.float64]
EMBEDDING = "embedding"
ONE_SIDED = {UNKNOWN: "high", STRANGE: "high", MARGIN: "low"}
"""A statistic that can only get worse in one direction; the others are watched in both."""


@dataclass(frozen=True)
class EmbeddingSpace:
    """Where the training pictures lie: `centre` (D,), and `directions` (D, K) in which they have unit variance."""

    centre: Array
    directions: Array

    def place(self, embeddings: NDArray[np.floating]) -> Array:
        """Pooled embeddings (..., D) -> places (..., K)."""
        return np.asarray((embeddings.astype(np.float64) - self.centre) @ self.directions)


@dataclass(frozen=True)
class Normal:
    """What an undisturbed stream shows.

    Attributes:
        names: of the S statistics.
        centre: (S,) their means over the reference pictures.
        low: (S,) and `high`: limits of their levels; minus or plus infinity on a side that is not watched.
        space: of the embedding.
        objects: of named objects; none where the reference has too few.
        place: (K,) the mean place of the reference pictures.
        reach: how far the embedding's level may be from `place`; infinity where it is not watched.
        window: pictures that a level rests on.
        pictures: that all this was learnt from.
    """

    names: tuple[str, ...]
    centre: Array
    low: Array
    high: Array
    space: EmbeddingSpace
    objects: ObjectSpace | None
    place: Array
    reach: float
    window: int
    pictures: int

    @property
    def weight(self) -> float:
        """Of the newest picture in a level."""
        return 2.0 / (self.window + 1.0)

    def measure(self, seen: Observation) -> tuple[dict[str, float], Array]:
        """All statistics of a picture, and the place (K,) of its embedding."""
        values = seen.values if self.objects is None else seen.values | {STRANGE: self.objects.strange(seen)}
        return values, self.space.place(seen.embedding)


@dataclass(frozen=True)
class Reading:
    """Where one chart stands; `low` and `high` are none on a side that is not watched."""

    name: str
    level: float
    normal: float
    low: float | None
    high: float | None

    @property
    def side(self) -> str | None:
        """`low` or `high` where the level is beyond that limit."""
        if self.low is not None and self.level < self.low:
            return "low"
        return "high" if self.high is not None and self.level > self.high else None


@dataclass(frozen=True)
class Levels:
    """The state of all charts after some pictures: `values` (S,) and the embedding's `place` (K,)."""

    values: Array
    place: Array

    @classmethod
    def start(cls, normal: Normal) -> Levels:
        """Before the first picture: everything is normal."""
        return cls(normal.centre.copy(), normal.place.copy())

    def after(self, values: Mapping[str, float], place: Array, normal: Normal) -> Levels:
        """After one more picture, as `Normal.measure` has it; a statistic that it does not have stays as it is."""
        found = vector(values, normal.names)
        step = np.where(np.isnan(found), 0.0, normal.weight * (found - self.values))
        return Levels(self.values + step, self.place + normal.weight * (place - self.place))

    def readings(self, normal: Normal) -> list[Reading]:
        """Every chart, the embedding's last."""
        rows = zip(normal.names, self.values, normal.centre, normal.low, normal.high, strict=True)
        readings = [Reading(n, float(v), float(c), _finite(lo), _finite(hi)) for n, v, c, lo, hi in rows]
        away = distance(self.place - normal.place, normal.weight)
        return [*readings, Reading(EMBEDDING, float(away), 0.0, None, _finite(normal.reach))]


def distance(offset: Array, weight: float) -> Array:
    """How far levels are from the reference (..., K) -> (...), in standard errors of a level of undisturbed pictures:
    the Mahalanobis distance of the weighted mean, the square root of MEWMA's T squared."""
    return np.asarray(np.linalg.norm(offset, axis=-1) / math.sqrt(weight / (2.0 - weight)))


def _finite(limit: float) -> float | None:
    return float(limit) if math.isfinite(limit) else None
