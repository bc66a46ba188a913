"""What more images of a class would bring: a curve over shots on the features, and its continuation.

Shape legend: N labelled objects, K components, G groups (images) that show a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from samif.advice.naming import Array, LabelledObjects, space_of

MIN_GROUPS = 6
"""Images of a class from which the curve is given: of fewer, too few are left to be named, and the interval covers
everything."""
MIN_OTHERS = 20
"""Objects of other classes that the space is made from at least."""
MORE = 5
DRAWS = 12
FIRST = 2
MOST_GROUPS = 30
CONFIDENCE = 0.95
SEED = 0


@dataclass(frozen=True)
class Point:
    """Share of a class's objects in other images that are named rightly after so many shots, 0..1, with the central
    nine tenths of the draws."""

    shots: int
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class ShotsCurve:
    """The curve of a class; `gain` is the rise that `more` further images would bring to the share of right names, in
    points (0..100), and `half` half the width of its 95 % interval."""

    points: tuple[Point, ...]
    more: int
    gain: float
    half: float


def shots_curve(objects: LabelledObjects, category: int) -> ShotsCurve | None:
    """The curve of one class; None where its images, or the objects of other classes, are too few.

    The space and the means of the other classes come from the other classes alone, as in a session that adds the class.
    Shots are whole images. The share is continued by a - b / shots, as the variance of a mean falls; the interval is a
    jackknife over the images.
    """
    own, others = objects.category == category, objects.category != category
    groups = np.unique(objects.group[own])
    if len(groups) < MIN_GROUPS or others.sum() < MIN_OTHERS or len(np.unique(objects.category[others])) < 2:
        return None
    if len(groups) > MOST_GROUPS:
        groups = np.random.default_rng(SEED).choice(groups, MOST_GROUPS, replace=False)
        own &= np.isin(objects.group, groups)
    centre, axes = space_of(objects.features[others], objects.category[others])
    at = (objects.features[own] - centre) @ axes
    rivals = (objects.features[others] - centre) @ axes
    best_rival = np.full(len(at), -np.inf)
    for c in np.unique(objects.category[others]):
        members = rivals[objects.category[others] == c]
        distance = ((at - members.mean(axis=0)) ** 2).sum(axis=1)
        best_rival = np.maximum(best_rival, -0.5 * distance / (1.0 + 1.0 / len(members)))
    group = objects.group[own]
    curves = _curves(at, group, best_rival)
    slope = _slope(curves.mean(axis=0))
    rest = [group != g for g in np.unique(group)]
    slopes = np.array([_slope(_curves(at[rows], group[rows], best_rival[rows]).mean(axis=0)) for rows in rest])
    count = len(slopes)
    error = float(np.sqrt((count - 1) / count * ((slopes - slopes.mean()) ** 2).sum()))
    here = len(np.unique(objects.group[objects.category == category]))
    step = 1.0 / here - 1.0 / (here + MORE)
    # where all names are right, the jackknife sees no error: count one more right and one more wrong name (Laplace)
    share = (curves[:, -1].mean() * count + 1.0) / (count + 2.0)
    spread = float(np.hypot(error * step, here * step * np.sqrt(share * (1.0 - share) / count)))
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    low, high = np.quantile(curves, (0.05, 0.95), axis=0)
    points = tuple(
        Point(shots, float(right), float(lower), float(upper))
        for shots, (right, lower, upper) in enumerate(zip(curves.mean(axis=0), low, high, strict=True), start=1)
    )
    return ShotsCurve(points, MORE, 100.0 * slope * step, 100.0 * quantile * spread)


def _curves(at: Array, group: NDArray[np.int64], best_rival: Array) -> Array:
    """Share of right names (DRAWS, S) of objects (N, K) in groups that are not among the first 1..S shots."""
    groups, of = np.unique(group, return_inverse=True)
    most = len(groups) - max(2, len(groups) // 4)
    rng = np.random.default_rng(SEED)
    found = np.zeros((DRAWS, most))
    sums = np.zeros((len(groups), at.shape[1]))
    np.add.at(sums, of, at)
    counts = np.bincount(of)
    for draw in range(DRAWS):
        order = rng.permutation(len(groups))
        rank = np.argsort(order)[of]
        total, number = np.cumsum(sums[order], axis=0), np.cumsum(counts[order])
        for shots in range(1, most + 1):
            asked, n = rank >= shots, number[shots - 1]
            distance = ((at[asked] - total[shots - 1] / n) ** 2).sum(axis=1)
            found[draw, shots - 1] = (-0.5 * distance / (1.0 + 1.0 / n) > best_rival[asked]).mean()
    return found


def _slope(curve: Array) -> float:
    """b of the least squares fit a - b / shots to a curve (S,) from FIRST shots on: single shots fall off steeper."""
    inverse = 1.0 / np.arange(FIRST, len(curve) + 1)
    centred = inverse - inverse.mean()
    return -float((centred * curve[FIRST - 1 :]).sum() / (centred**2).sum())
