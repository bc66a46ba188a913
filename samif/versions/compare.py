"""Where two versions differ on the same images: scores with intervals, and the images on which they disagree.

Scores are compared over the classes that both versions know, so that classes which came in between neither lift nor
lower a group; `before` is the version that is live or older, `after` the one that would follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from samif.classifier.operating_point import IMAGES as PER_IMAGES
from samif.config import Strict
from samif.dataset.model import ImageRecord
from samif.errors import DataError
from samif.evaluate.average_precision import Detection, group_mean
from samif.evaluate.match_cache import MatchCache
from samif.evaluate.matching import MATCH_IOU, Kind, Matched
from samif.evaluate.model import Evaluation
from samif.masks.rle import overlaps
from samif.versions.intervals import simultaneous_intervals

Metric = Literal["ap", "ap50"]
Floats = NDArray[np.float64]
Interval = Callable[[Floats], tuple[float | None, float | None]]
GROUPS = ("base", "novel", "all")
_THRESHOLDS = {"ap": slice(None), "ap50": slice(0, 1)}


@dataclass(frozen=True)
class ScoredVersion:
    """A version scored on one set of images."""

    evaluation: Evaluation
    matches: MatchCache
    detections: list[Detection]
    matched: list[Matched]


class Change(Strict):
    """One quantity of both versions, with the bootstrap interval of after - before; None where it does not exist."""

    before: float | None
    after: float | None
    low: float | None
    high: float | None
    instances: int

    @property
    def change(self) -> float | None:
        """after - before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def is_none(self) -> bool:
        """Both came out the same, on every resample."""
        return self.change == 0.0 and self.low == 0.0 and self.high == 0.0

    @property
    def is_noise(self) -> bool:
        """The interval holds zero: other images of the same kind could show no difference, or its opposite."""
        return self.low is not None and self.high is not None and self.low <= 0.0 <= self.high


class Comparison(Strict):
    """Two versions on the same images.

    `groups` (base, novel, all) and `classes` hold points of `metric` (0-100) over the classes that both know;
    `unlabelled_false_positives` are false positives per image on objects of no known class. `named` is the share of
    objects of these classes that are rightly named, in points, and `false_names` the false positives per 1,000 images,
    each at its version's operating point. `added` and `lost` name the other classes.
    """

    metric: Metric
    images: int
    resamples: int
    confidence: float
    groups: dict[str, Change]
    classes: dict[str, Change]
    unlabelled_false_positives: Change
    named: Change | None = None
    false_names: Change | None = None
    added: tuple[str, ...]
    lost: tuple[str, ...]


def compare(
    before: ScoredVersion,
    after: ScoredVersion,
    metric: Metric,
    resamples: int,
    confidence: float,
    seed: int,
    min_instances: int = 1,
) -> Comparison:
    """Compare two versions by a paired bootstrap over images: each resample draws as many images as there are,
    with replacement, and scores both versions on it; the interval is that of the differences' percentiles. Intervals of
    classes hold together, see `simultaneous_intervals`.

    Args:
        min_instances: objects from which on a class is judged, and so belongs to the family.

    Raises:
        DataError: the versions were scored on different images.
    """
    one, two = before.evaluation, after.evaluation
    if one.dataset != two.dataset:
        raise DataError(
            f"'{one.name}' was scored on images {one.dataset[:12]}, '{two.name}' on {two.dataset[:12]}; "
            "score both on the same images"
        )
    shared = [name for name in one.per_class if name in two.per_class]
    images = len(before.matches.unlabelled_false_positives)
    weights = _draw(images, resamples, seed)
    differences = {name: _difference(before, after, name, weights, metric) for name in shared}

    def interval(values: Floats) -> tuple[float | None, float | None]:
        usable = values[~np.isnan(values)]
        if not usable.size:
            return None, None
        tail = 50.0 * (1.0 - confidence)
        low, high = np.percentile(usable, [tail, 100.0 - tail])
        return float(low), float(high)

    def change(names: Sequence[str]) -> Change:
        scores = [group_mean({n: getattr(e.per_class[n], metric) for n in names}, names) for e in (one, two)]
        low, high = interval(_mean([differences[n] for n in names]))
        instances = sum(two.per_class[n].instances for n in names)
        return Change(before=scores[0], after=scores[1], low=low, high=high, instances=instances)

    family = frozenset(name for name in shared if two.per_class[name].instances >= min_instances)
    classes = {name: change([name]) for name in shared}
    intervals = simultaneous_intervals({n: c.change for n, c in classes.items()}, differences, confidence, family)
    classes = {
        n: c.model_copy(update=dict(zip(("low", "high"), intervals[n], strict=True))) for n, c in classes.items()
    }

    members = {
        "base": [n for n in shared if one.per_class[n].group == "base"],
        "novel": [n for n in shared if one.per_class[n].group == "novel"],
        "all": shared,
    }
    rise = (after.matches.unlabelled_false_positives - before.matches.unlabelled_false_positives).astype(np.float64)
    low, high = interval(weights @ rise / images) if images else (None, None)
    return Comparison(
        metric=metric,
        images=images,
        resamples=resamples,
        confidence=confidence,
        groups={group: change(members[group]) for group in GROUPS},
        classes=classes,
        unlabelled_false_positives=Change(
            before=one.unknown.unlabelled_false_positives_per_image,
            after=two.unknown.unlabelled_false_positives_per_image,
            low=low,
            high=high,
            instances=two.unknown.objects,
        ),
        named=_named(before, after, shared, weights, interval),
        false_names=_false_names(before, after, weights, interval),
        added=tuple(name for name in two.per_class if name not in one.per_class),
        lost=tuple(name for name in one.per_class if name not in two.per_class),
    )


def _named(
    before: ScoredVersion, after: ScoredVersion, shared: Sequence[str], weights: NDArray[np.int32], interval: Interval
) -> Change:
    objects = sum((after.matches.classes[name].objects for name in shared), np.zeros(weights.shape[1], dtype=np.int64))
    right = [_per_image(side, "hits", frozenset(shared)) for side in (before, after)]
    with np.errstate(invalid="ignore"):
        low, high = interval(100.0 * (weights @ (right[1] - right[0])) / (weights @ objects))
    total = int(objects.sum())
    shares = [100.0 * float(found.sum()) / total if total else None for found in right]
    return Change(before=shares[0], after=shares[1], low=low, high=high, instances=total)


def _false_names(before: ScoredVersion, after: ScoredVersion, weights: NDArray[np.int32], interval: Interval) -> Change:
    false = [_per_image(side, "false_positives", None) for side in (before, after)]
    images = weights.shape[1]
    if not images:
        return Change(before=None, after=None, low=None, high=None, instances=0)
    low, high = interval(PER_IMAGES * (weights @ (false[1] - false[0])) / images)
    rates = [PER_IMAGES * float(found.sum()) / images for found in false]
    return Change(before=rates[0], after=rates[1], low=low, high=high, instances=int(false[1].sum()))


def _per_image(side: ScoredVersion, kind: Kind, classes: frozenset[str] | None) -> NDArray[np.int64]:
    """Hits or false positives of each image (P,), of some classes or of all."""
    counts = [sum(classes is None or name in classes for name in image.names(kind)) for image in side.matched]
    return np.array(counts, dtype=np.int64)


def _draw(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """How often each resample draws each image, (R, P)."""
    if not images:
        return np.zeros((resamples, 0), dtype=np.int32)
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1.0 / images), size=resamples).astype(np.int32)


def _difference(
    before: ScoredVersion, after: ScoredVersion, name: str, weights: NDArray[np.int32], metric: Metric
) -> Floats:
    one, two = (side.matches.classes[name].average_precision(weights, _THRESHOLDS[metric]) for side in (before, after))
    return two - one


def _mean(differences: Sequence[Floats]) -> Floats:
    """Mean over classes, (R,): as in a group's AP, a class that a resample does not show is left out of it."""
    if not differences:
        return np.zeros(0)
    stacked = np.stack(differences)
    shown = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(shown, stacked, 0.0).sum(axis=0) / shown.sum(axis=0))


@dataclass(frozen=True)
class Disagreement:
    """One image on which two versions differ, at their operating scores.

    Attributes:
        lost: annotation ids that `before` found under their right name and `after` did not.
        won: the reverse.
        new_false_positives: indices into `after.detections`: false positives that `before` does not have.
        gone_false_positives: indices into `before.detections`: false positives that `after` does not have.
    """

    before: Matched
    after: Matched
    lost: frozenset[int]
    won: frozenset[int]
    new_false_positives: frozenset[int]
    gone_false_positives: frozenset[int]

    @property
    def image(self) -> ImageRecord:
        return self.after.image

    @property
    def worse(self) -> int:
        """Objects lost and false positives new."""
        return len(self.lost) + len(self.new_false_positives)

    @property
    def better(self) -> int:
        """Objects won and false positives gone."""
        return len(self.won) + len(self.gone_false_positives)


def disagreements(before: Iterable[Matched], after: Iterable[Matched]) -> list[Disagreement]:
    """The images on which two versions differ: the worst regression first, after the regressions the best
    improvement.

    Args:
        before: images matched with one version.
        after: the same images in the same order, matched with the other version.
    """
    found = [_disagreement(one, two) for one, two in zip(before, after, strict=True)]
    differing = [item for item in found if item.worse or item.better]
    return sorted(differing, key=_rank)


def _rank(item: Disagreement) -> tuple[bool, int, int, int]:
    net = item.worse - item.better
    return net <= 0, -abs(net), -item.worse, item.image.id


def _disagreement(before: Matched, after: Matched) -> Disagreement:
    def found(side: Matched) -> set[int]:
        return {side.truth[index].id for index in side.matched_gt if index is not None}

    return Disagreement(
        before,
        after,
        lost=frozenset(found(before) - found(after)),
        won=frozenset(found(after) - found(before)),
        new_false_positives=_without_twin(after, before),
        gone_false_positives=_without_twin(before, after),
    )


def _without_twin(side: Matched, other: Matched) -> frozenset[int]:
    """Indices of false positives for which the other version has none of the same class at the same place."""
    rows = [index for index, false_positive in enumerate(side.false_positives) if false_positive]
    columns = [index for index, false_positive in enumerate(other.false_positives) if false_positive]
    iou = overlaps([side.detections[i].rle for i in rows], [other.detections[i].rle for i in columns])
    return frozenset(
        row
        for at, row in enumerate(rows)
        if not any(
            iou[at, c] >= MATCH_IOU and other.detections[column].category == side.detections[row].category
            for c, column in enumerate(columns)
        )
    )
