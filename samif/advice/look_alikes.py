"""Pairs of classes that features tell apart badly.

Shape legend: N labelled objects, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from samif.advice.naming import Array, LabelledObjects

MIN_OBJECTS = 4
"""Objects of each of two classes from which they are compared."""
CONFUSED = 0.1
"""Share of the objects of two classes whose names are exchanged from which the two look alike. Above it are glove
and T-shirt of the 190 pairs of tote_dev, hex nut and washer of the demo line's 153, and no pair of microcontrollers."""
MIN_CONFUSED = 3


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


def rightly_named(objects: LabelledObjects, log_probability: Array) -> dict[str, float]:
    """Share of the objects of each class that are named rightly without their own image, 0..1."""
    right = log_probability.argmax(axis=1) == objects.category
    return {
        name: float(right[objects.category == c].mean())
        for c, name in enumerate(objects.names)
        if (objects.category == c).any()
    }
