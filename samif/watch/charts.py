"""Charts over a stream of images: exponentially weighted levels, held against limits.

Each statistic has a chart of its own (EWMA: Roberts 1959; Lucas and Saccucci 1990); the pooled embedding and the doubt
about objects have one chart each over all of their directions (MEWMA: Lowry, Woodall, Champ and Rigdon 1992). Limits
come from `samif.watch.calibrate`.

Shape legend: S statistics, K directions that are watched of an embedding or of doubt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from samif.inference.segment import UNKNOWN
from samif.watch.objects import ObjectSpace
from samif.watch.observe import MARGIN, STRANGE, Observation, vector
from samif.watch.space import Array, Region, distance

EMBEDDING, DOUBT = "embedding", "doubt"
ONE_SIDED = {UNKNOWN: "high", STRANGE: "high", MARGIN: "low"}
"""A statistic that can only get worse in one direction; the others are watched in both."""


@dataclass(frozen=True)
class Normal:
    """What an undisturbed stream shows.

    Attributes:
        names: of the S statistics.
        centre: (S,) their means over the reference images.
        low: (S,) and `high`: limits of their levels; minus or plus infinity on a side that is not watched.
        objects: of named objects; none where the reference has too few.
        regions: `embedding` and `doubt` -> where their levels stay.
        window: images that a level rests on.
        images: that all this was learnt from.
    """

    names: tuple[str, ...]
    centre: Array
    low: Array
    high: Array
    objects: ObjectSpace | None
    regions: dict[str, Region]
    window: int
    images: int

    @property
    def weight(self) -> float:
        """Of the newest image in a level."""
        return 2.0 / (self.window + 1.0)

    def measure(self, seen: Observation) -> tuple[dict[str, float], dict[str, Array]]:
        """All statistics of an image, and its places (K,) in the regions."""
        values = seen.values if self.objects is None else seen.values | {STRANGE: self.objects.strange(seen)}
        numbers = {EMBEDDING: seen.embedding, DOUBT: seen.doubt}
        return values, {name: region.space.place(numbers[name]) for name, region in self.regions.items()}


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
    """The state of all charts after some images: `values` (S,), and `places` (K,) in each region."""

    values: Array
    places: dict[str, Array]

    @classmethod
    def start(cls, normal: Normal) -> Levels:
        """Before the first image: everything is normal."""
        return cls(normal.centre.copy(), {name: region.middle.copy() for name, region in normal.regions.items()})

    def after(self, values: Mapping[str, float], places: Mapping[str, Array], normal: Normal) -> Levels:
        """After one more image, as `Normal.measure` has it; a statistic that it does not have stays as it is."""
        found = vector(values, normal.names)
        step = np.where(np.isnan(found), 0.0, normal.weight * (found - self.values))
        moved = {name: level + normal.weight * (places[name] - level) for name, level in self.places.items()}
        return Levels(self.values + step, moved)

    def readings(self, normal: Normal) -> list[Reading]:
        """Every chart, those of the regions last."""
        rows = zip(normal.names, self.values, normal.centre, normal.low, normal.high, strict=True)
        readings = [Reading(n, float(v), float(c), _finite(lo), _finite(hi)) for n, v, c, lo, hi in rows]
        for name, region in normal.regions.items():
            away = float(distance(self.places[name] - region.middle, normal.weight))
            readings.append(Reading(name, away, 0.0, None, _finite(region.reach)))
        return readings


def _finite(limit: float) -> float | None:
    return float(limit) if math.isfinite(limit) else None
