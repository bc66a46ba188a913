"""Means over seeds with 95 % intervals, and what is worth a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from samif.config import BASE
from samif.protocol.run import Score

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over `count` seeds and half the width of its interval (Student's t); None for a single seed."""

    mean: float
    half: float | None
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.half is None else f"{self.mean:.1f} ± {self.half:.1f}"


def mean_of(values: Sequence[float | None]) -> Mean | None:
    """The mean of the values that are there, and its interval; None where there is none."""
    present = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(present):
        return None
    if len(present) == 1:
        return Mean(float(present[0]), None, 1)
    error = float(present.std(ddof=1)) / np.sqrt(len(present))
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(present) - 1))
    return Mean(float(present.mean()), quantile * float(error), len(present))


MEASURES: dict[str, Callable[[Score], float | None]] = {
    "base_ap": lambda s: s.ap.base,
    "novel_ap": lambda s: s.ap.novel,
    "all_ap": lambda s: s.ap.all,
    "base_ap50": lambda s: s.ap50.base,
    "novel_ap50": lambda s: s.ap50.novel,
    "all_ap50": lambda s: s.ap50.all,
    "base_only_ap": lambda s: s.base_only,
    "novel_named_as_base": lambda s: s.as_base,
    "base_named_as_novel": lambda s: s.as_novel,
    "unknown_auroc": lambda s: s.unknown.auroc,
    "unlabelled_false_positives_per_image": lambda s: s.unknown.unlabelled_false_positives_per_image,
    "seconds_per_class": lambda s: s.seconds_per_class,
}


@dataclass(frozen=True)
class Row:
    """One number of shots and one session, over all seeds; `forgetting` is the fall of base AP on base-only images
    since the base classifier, in points."""

    shots: int
    session: str
    seeds: int
    measures: dict[str, Mean | None]
    forgetting: Mean | None


def summarise(scores: Sequence[Score]) -> list[Row]:
    """One row per number of shots and session, in the order of the scores; the base classifier first."""
    before = next((s.base_only for s in scores if s.session == BASE), None)
    groups: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.shots, score.session), []).append(score)
    return [
        Row(
            shots,
            session,
            len(group),
            {name: mean_of([measure(score) for score in group]) for name, measure in MEASURES.items()},
            None
            if session == BASE or before is None
            else mean_of([None if s.base_only is None else before - s.base_only for s in group]),
        )
        for (shots, session), group in groups.items()
    ]
