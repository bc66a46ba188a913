"""The operating point: the score from which a class is named, chosen for at most N false names per 1,000 images.

A false name is a named mask that matches no object of its class. Evidence comes from images that the classifier which
named them did not learn from (`samif.classifier.base.cross_fit`).

Shape legend: N named masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import chi2, norm

from samif.config import Strict
from samif.errors import DataError

NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

IMAGES = 1000
"""Images that a limit of false names refers to."""
COVERAGE = 0.95
"""Of the intervals."""
CURVE = 101
"""Scores of a curve."""
FEWEST_EXPECTED = 3.0
"""A limit needs images enough that this many false names would be allowed on them: without any, the upper end of a
one-sided interval of 95 % is three names, so fewer images cannot support the limit even where nothing is false."""


@dataclass(frozen=True)
class NamingEvidence:
    """Names that were given to the objects of images.

    Attributes:
        images: number of images.
        objects: labelled objects per class.
        classes: the class of each named mask (N).
        scores: (N,) in 0..1.
        right: whether each matches an object of its class (N,).
    """

    images: int
    objects: Mapping[str, int]
    classes: Sequence[str]
    scores: NDArray[np.float64]
    right: NDArray[np.bool_]

    def of_class(self, name: str) -> NamingEvidence:
        """The names of one class, on the same images."""
        rows = np.array([other == name for other in self.classes], dtype=bool)
        return NamingEvidence(
            self.images, {name: self.objects[name]}, [name] * int(rows.sum()), self.scores[rows], self.right[rows]
        )


class Estimate(Strict):
    """A measured value and its interval (COVERAGE)."""

    value: NonNegative
    low: NonNegative
    high: NonNegative


class NamingRates(Strict):
    """What names are worth.

    Attributes:
        score: names below it are left out; None where classes have scores of their own.
        named: share of the labelled objects that are rightly named (0..1); None without objects.
        false_names: per 1,000 images.
    """

    score: NonNegative | None
    named: Estimate | None
    false_names: Estimate


class OperatingPoint(Strict):
    """Scores from which classes are named, and what the evidence says of them.

    Attributes:
        limit: false names per 1,000 images that were allowed.
        images: number of images that it rests on.
        score: for every class without a limit of its own; above 1 where no name can be allowed.
        class_scores: for the classes with one; never below `score`.
        rates: of all classes together.
    """

    limit: NonNegative
    images: int
    score: NonNegative
    class_scores: dict[str, NonNegative]
    rates: NamingRates

    def score_of(self, name: str) -> float:
        """The score from which a class is named."""
        return self.class_scores.get(name, self.score)


def choose_point(
    evidence: NamingEvidence, limit: float, class_limits: Mapping[str, float] | None = None
) -> OperatingPoint:
    """The lowest scores at which no more than the allowed names are false.

    Args:
        limit: false names per 1,000 images, of all classes together.
        class_limits: the same for single classes.

    Raises:
        DataError: the images are too few for a limit, or nothing was measured for a class.
    """
    class_limits = class_limits or {}
    for name in class_limits:
        if name not in evidence.objects:
            raise DataError(
                f"class '{name}' has a limit of false names, but they were measured for base classes only "
                f"({', '.join(evidence.objects)}); remove its limit"
            )
    score = _lowest_score(evidence, limit, "")
    own = {
        name: _lowest_score(evidence.of_class(name), each, f"class '{name}': ") for name, each in class_limits.items()
    }
    class_scores = {name: max(score, each) for name, each in own.items()}
    least = np.array([class_scores.get(name, score) for name in evidence.classes])
    rates = _rates(evidence, evidence.scores >= least, None if class_scores else score)
    return OperatingPoint(limit=limit, images=evidence.images, score=score, class_scores=class_scores, rates=rates)


def naming_curve(evidence: NamingEvidence) -> list[NamingRates]:
    """What names are worth from each of CURVE scores up, highest score first."""
    scores = np.linspace(1.0, 0.0, CURVE)
    return [_rates(evidence, evidence.scores >= score, float(score)) for score in scores]


def _lowest_score(evidence: NamingEvidence, limit: float, what: str) -> float:
    allowed = limit * evidence.images / IMAGES
    if allowed < FEWEST_EXPECTED:
        needed = math.ceil(FEWEST_EXPECTED * IMAGES / limit)
        raise DataError(
            f"{what}at most {limit:g} false names per {IMAGES:,} images cannot be shown on {evidence.images} training "
            f"images; label at least {needed:,}, or allow more false names"
        )
    false = np.sort(evidence.scores[~evidence.right])[::-1]
    if len(false) <= allowed:
        return 0.0
    first_refused = float(false[math.floor(allowed)])
    above = evidence.scores[evidence.scores > first_refused]
    # Half way to the next name above, as new images hit neither score exactly.
    middle = (first_refused + float(above.min())) / 2.0 if len(above) else 0.0
    return max(middle, math.nextafter(first_refused, math.inf))


def rates_of(right: int, objects: int, false: int, images: int, score: float | None = None) -> NamingRates:
    """Rates of counts: right names among objects, false names on images."""
    return NamingRates(
        score=score, named=_share(right, objects) if objects else None, false_names=_per_images(false, images)
    )


def _rates(evidence: NamingEvidence, kept: NDArray[np.bool_], score: float | None) -> NamingRates:
    right, false = int((kept & evidence.right).sum()), int((kept & ~evidence.right).sum())
    return rates_of(right, sum(evidence.objects.values()), false, evidence.images, score)


def _share(count: int, total: int) -> Estimate:
    """A share with Wilson's interval."""
    z = float(norm.ppf((1.0 + COVERAGE) / 2.0))
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # the ends at 0 and 1 are exact, but may be rounded to the other side of the share
    return Estimate(value=share, low=max(0.0, min(share, middle - half)), high=min(1.0, max(share, middle + half)))


def _per_images(count: int, images: int) -> Estimate:
    """A rate per 1,000 images with the exact interval of a Poisson count."""
    tail = (1.0 - COVERAGE) / 2.0
    low = float(chi2.ppf(tail, 2 * count)) / 2.0 if count else 0.0
    high = float(chi2.ppf(1.0 - tail, 2 * (count + 1))) / 2.0
    return Estimate(**{end: n * IMAGES / images for end, n in (("value", count), ("low", low), ("high", high))})
