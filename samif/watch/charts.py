"""Control charts over a stream of images: exponentially weighted moving averages (EWMA) against control limits.

Each statistic has a chart of its own (EWMA: Roberts 1959; Lucas and Saccucci 1990); the pooled embedding and the
uncertainty have one multivariate chart each (MEWMA: Lowry, Woodall, Champ and Rigdon 1992). Limits come from
`samif.watch.calibrate`.

Shape legend: S statistics, K components of the embedding or of the uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from samif.inference.segment import UNKNOWN
from samif.watch.objects import ObjectSpace
from samif.watch.observe import MARGIN, OUT_OF_DISTRIBUTION, Observation, vector
from samif.watch.projection import Array, Region, mahalanobis

EMBEDDING, UNCERTAINTY = "embedding", "uncertainty"
ONE_SIDED = {UNKNOWN: "high", OUT_OF_DISTRIBUTION: "high", MARGIN: "low"}
"""Statistics that can only get worse in one direction; the others have limits on both sides."""


@dataclass(frozen=True)
class Baseline:
    """An undisturbed stream: means and control limits.

    Attributes:
        names: of the S statistics.
        centre: (S,) means over the reference images.
        low: (S,) and `high`: control limits of the levels; minus or plus infinity on a side that is not monitored.
        objects: distribution of classified objects; none where the reference shows too few.
        regions: `embedding` and `uncertainty` -> the region in which their levels stay.
        window: effective number of images that a level averages.
        images: number of reference images.
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
        """Weight of the newest image in a level."""
        return 2.0 / (self.window + 1.0)

    def measure(self, image: Observation) -> tuple[dict[str, float], dict[str, Array]]:
        """All statistics of an image, and its projections (K,) by chart."""
        values = image.values
        if self.objects is not None:
            values = values | {OUT_OF_DISTRIBUTION: self.objects.count_out_of_distribution(image)}
        vectors = {EMBEDDING: image.embedding, UNCERTAINTY: image.uncertainty}
        return values, {name: region.projection.apply(vectors[name]) for name, region in self.regions.items()}

    def deviation(
        self, name: str, values: Mapping[str, float], projections: Mapping[str, Array], levels: Levels
    ) -> float:
        """How far an image lies from the reference mean of a chart, in the direction in which the level lies: the image
        with the largest deviation moved the level the most. Minus infinity where the statistic is undefined."""
        if name in self.regions:
            centre = self.regions[name].centre
            return float((projections[name] - centre) @ (levels.projections[name] - centre))
        index = self.names.index(name)
        offset = float(vector(values, self.names)[index] - self.centre[index])
        return (
            -math.inf if math.isnan(offset) else offset * math.copysign(1.0, levels.values[index] - self.centre[index])
        )


@dataclass(frozen=True)
class Reading:
    """The state of one chart: its level, the level of an undisturbed stream, and its limits, none on a side that is not
    monitored."""

    name: str
    level: float
    expected: float
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
    """EWMA levels of all charts: `values` (S,), and `projections` (K,) by chart."""

    values: Array
    projections: dict[str, Array]

    @classmethod
    def start(cls, baseline: Baseline) -> Levels:
        """Levels before the first image: the reference means."""
        return cls(baseline.centre.copy(), {name: region.centre.copy() for name, region in baseline.regions.items()})

    def after(self, values: Mapping[str, float], projections: Mapping[str, Array], baseline: Baseline) -> Levels:
        """Levels after one more image, as `Baseline.measure` returns it; an undefined statistic keeps its level."""
        found = vector(values, baseline.names)
        step = np.where(np.isnan(found), 0.0, baseline.weight * (found - self.values))
        moved = {
            name: level + baseline.weight * (projections[name] - level) for name, level in self.projections.items()
        }
        return Levels(self.values + step, moved)

    def readings(self, baseline: Baseline) -> list[Reading]:
        """The reading of every chart, multivariate charts last."""
        rows = zip(baseline.names, self.values, baseline.centre, baseline.low, baseline.high, strict=True)
        readings = [Reading(n, float(v), float(c), _finite(lo), _finite(hi)) for n, v, c, lo, hi in rows]
        for name, region in baseline.regions.items():
            distance = float(mahalanobis(self.projections[name] - region.centre, baseline.weight))
            readings.append(Reading(name, distance, 0.0, None, _finite(region.radius)))
        return readings


def _finite(limit: float) -> float | None:
    return float(limit) if math.isfinite(limit) else None
