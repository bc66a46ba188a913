"""Pairs of classes that features tell apart badly, and objects of a class that are one view.

Shape legend: N labelled objects, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from samif.advice.naming import Array, LabelledObjects

MIN_OBJECTS = 4
"""Objects of each of two classes from which they are compared."""
CONFUSED = 0.1
"""Share of the objects of two classes whose names are exchanged from which the two look alike. Above it are glove
and T-shirt of the 190 pairs of tote_dev, hex nut and washer of the demo line's 153, and no pair of microcontrollers."""
MIN_CONFUSED = 3
SAME_VIEW = 0.4
"""Distance of two objects of a class in different images, relative to the median of such distances in the other
classes, below which they are one view. Of copies saved anew or made brighter 95 % or more are below it on tote_dev,
microcontrollers and the demo line, of copies moved by 1 % half or more. Of pairs from different images 0.5 % are below
it on tote_dev, where parts lie unmoved in several scenes, 0.1 % on the demo line and none on microcontrollers."""


@dataclass(frozen=True)
class LookAlikes:
    """Two classes, the share of their objects that one of them is taken for the other, and the number of those."""

    first: str
    second: str
    confused: float
    count: int


def look_alikes(objects: LabelledObjects, log_probability: Array) -> list[LookAlikes]:
    """Pairs of classes that are taken for each other, the most frequent first; N and C as in `log_probability`."""
    found = []
    given = [np.flatnonzero(objects.category == c) for c in range(len(objects.names))]
    for a, b in combinations(range(len(objects.names)), 2):
        if min(len(given[a]), len(given[b])) < MIN_OBJECTS:
            continue
        wrong = [
            (log_probability[given[own], other] > log_probability[given[own], own]).sum()
            for own, other in ((a, b), (b, a))
        ]
        count, total = int(sum(wrong)), len(given[a]) + len(given[b])
        if count >= MIN_CONFUSED and count > CONFUSED * total:
            found.append(LookAlikes(objects.names[a], objects.names[b], count / total, count))
    return sorted(found, key=lambda pair: -pair.confused)


def view_shares(objects: LabelledObjects) -> dict[str, float]:
    """Different views of each class over its objects, 0..1: objects that are one view, or one with a third, count once.

    Classes without a distance to compare with are left out.
    """
    values = objects.features / (objects.features.std(axis=0) + 1e-6)
    distances: dict[str, NDArray[np.floating]] = {}
    for c, name in enumerate(objects.names):
        rows = np.flatnonzero(objects.category == c)
        apart = objects.group[rows][:, None] != objects.group[rows][None, :]
        if apart.any():
            distances[name] = np.where(apart, cdist(values[rows], values[rows]), np.inf)
    typical = {name: float(np.median(found[np.isfinite(found)])) for name, found in distances.items()}
    shares = {}
    for name, found in distances.items():
        others = [value for other, value in typical.items() if other != name]
        if others:
            same = csr_matrix(found < SAME_VIEW * float(np.median(others)))
            shares[name] = float(connected_components(same, directed=False)[0]) / len(found)
    return shares


def rightly_named(objects: LabelledObjects, log_probability: Array) -> dict[str, float]:
    """Share of the objects of each class that are named rightly without their own image, 0..1."""
    right = log_probability.argmax(axis=1) == objects.category
    return {
        name: float(right[objects.category == c].mean())
        for c, name in enumerate(objects.names)
        if (objects.category == c).any()
    }
