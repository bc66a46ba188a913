"""Base training: frozen feature space, base rows, background prototypes and calibration, in closed form.

Base rows are means, as novel rows are: trained rows would lie further out and be favoured over imprinted ones.
Everything that is chosen (covariance shrinkage, and what `calibration` fits) is chosen by the likelihood of images that
had no part in what scores them.

Shape legend: N samples, D feature width, d projected width, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sklearn.cluster import KMeans

from samif.classifier.calibration import Calibration, HeldOutScores, calibrate
from samif.classifier.collect import BaseSamples
from samif.classifier.heads import HEADS, BaseStatistics
from samif.classifier.model import Classifier, FeatureSpace
from samif.config import TrainBaseParams
from samif.errors import DataError

logger = logging.getLogger(__name__)

FOLDS = 4
SHRINKAGES = (None, 0.1, 0.3, 0.5, 0.7)
"""Shares of the identity in the covariance that are tried; None is Ledoit's and Wolf's own estimate."""
MAX_BACKGROUND_SAMPLES = 6000
"""Background samples that are clustered: more add nothing and take minutes."""


@dataclass(frozen=True)
class CrossFit:
    """A classifier, and the ids of the images that it did not learn from."""

    images: frozenset[int]
    classifier: Classifier


@dataclass(frozen=True)
class TrainedBase:
    """A base classifier, and the share of the identity in its covariance (see SHRINKAGES)."""

    classifier: Classifier
    shrinkage: float | None


def train_base(
    samples: BaseSamples, params: TrainBaseParams, advance: Callable[[int], None] = lambda _: None
) -> Classifier:
    """The classifier of `fit_base` alone."""
    return fit_base(samples, params, advance).classifier


def fit_base(
    samples: BaseSamples, params: TrainBaseParams, advance: Callable[[int], None] = lambda _: None
) -> TrainedBase:
    """Train the base classifier.

    Args:
        advance: called with 1 for each of the `steps(params)` spaces that were fitted.

    Raises:
        DataError: a class has no instance.
    """
    empty = [name for name, instances in samples.instances.items() if not instances]
    if empty:
        raise DataError(
            f"base class '{empty[0]}' has no labelled instance in the training images; label some or leave it out"
        )
    samples = _subsampled(samples, params.seed)
    if not _mostly_in_several_images(samples):
        params = params.model_copy(update={"unknown_weight": 0.0, "rejection": 0.0})
    held_out: dict[float | None, list[HeldOutScores]] = {shrinkage: [] for shrinkage in _shrinkages(params)}
    for learn, check in _splits(samples, params.seed):
        statistics = _statistics(learn, params)
        for shrinkage, folds in held_out.items():
            folds.append(HeldOutScores.of(_space(statistics, shrinkage, learn, params), learn, check))
            advance(1)
    found = {shrinkage: calibrate(folds, params) for shrinkage, folds in held_out.items()}
    shrinkage = min(found, key=lambda choice: found[choice].loss)
    space = _space(_statistics(samples, params), shrinkage, samples, params)
    advance(1)
    space = _calibrated(space, found[shrinkage])
    return TrainedBase(_with_rows(space, samples), shrinkage)


def cross_fit(samples: BaseSamples, trained: TrainedBase, params: TrainBaseParams) -> list[CrossFit]:
    """The base classifier once per fold of the images, made without that fold; calibration as in `trained`.

    A class whose instances all lie in one fold is learnt from that very fold, and named in it all the same.
    """
    calibrated = trained.classifier.space
    samples = _subsampled(samples, params.seed)
    found = []
    for images, (learn, _) in zip(_folds(samples, params.seed), _splits(samples, params.seed), strict=True):
        space = replace(
            _space(_statistics(learn, params), trained.shrinkage, learn, params),
            temperature=calibrated.temperature,
            background_bias=calibrated.background_bias,
            unknown_bias=calibrated.unknown_bias,
        )
        found.append(CrossFit(images, _with_rows(space, learn)))
    return found


def steps(params: TrainBaseParams) -> int:
    """Number of spaces that `train_base` fits."""
    return FOLDS * len(_shrinkages(params)) + 1


def _shrinkages(params: TrainBaseParams) -> tuple[float | None, ...]:
    return SHRINKAGES if HEADS[params.head].whitened else (None,)


def _subsampled(samples: BaseSamples, seed: int) -> BaseSamples:
    """At most MAX_BACKGROUND_SAMPLES of background, drawn at random."""
    count = len(samples.background)
    if count <= MAX_BACKGROUND_SAMPLES:
        return samples
    rows = np.sort(np.random.default_rng([seed, 3]).permutation(count)[:MAX_BACKGROUND_SAMPLES])
    return replace(samples, background=samples.background[rows], background_images=samples.background_images[rows])


def _mostly_in_several_images(samples: BaseSamples) -> bool:
    """Whether half of the classes are in two images or more: otherwise the unknown class and the rejection threshold
    cannot be calibrated, as no object of a known class is seen in a new image."""
    several = [len({i.image for i in instances}) > 1 for instances in samples.instances.values()]
    return 2 * sum(several) >= len(several)


def _folds(samples: BaseSamples, seed: int) -> list[frozenset[int]]:
    """Image ids in FOLDS parts, drawn at random."""
    images = samples.images
    order = np.random.default_rng([seed, 5]).permutation(len(images))
    return [frozenset(images[i] for i in order[part::FOLDS]) for part in range(FOLDS)]


def _splits(samples: BaseSamples, seed: int) -> list[tuple[BaseSamples, BaseSamples]]:
    """Per fold, the samples to learn from and the held-out samples to score.

    A class whose instances all lie in one fold is learnt from that very fold there, so that it has a row as elsewhere,
    and is not scored. Where that leaves nothing to score, of classes or of background, the samples that were learnt
    from are scored, as there is nothing better.
    """
    parts = [(samples.of(frozenset(samples.images) - fold), samples.of(fold)) for fold in _folds(samples, seed)]
    scorable = [{name for name, found in learn.instances.items() if found} for learn, _ in parts]
    if not any(check.instances[name] for (_, check), names in zip(parts, scorable, strict=True) for name in names):
        logger.warning("no base class is in images of two folds: calibrated on the training samples themselves")
        scorable = [set(samples.instances)] * len(parts)
    splits = []
    for (learn, check), names in zip(parts, scorable, strict=True):
        filled = {name: found or samples.instances[name] for name, found in learn.instances.items()}
        scored = {name: found if name in names else [] for name, found in check.instances.items()}
        if not len(learn.background) and len(samples.background):
            logger.warning("all background is in images of one fold: calibrated on the training samples themselves")
            learn = replace(learn, background=samples.background, background_images=samples.background_images)
        splits.append((replace(learn, instances=filled), replace(check, instances=scored)))
    return splits


def _statistics(samples: BaseSamples, params: TrainBaseParams) -> BaseStatistics:
    groups = [np.concatenate([i.samples for i in instances]) for instances in samples.instances.values()]
    return BaseStatistics.of(params.head, groups, params.seed)


def _space(
    statistics: BaseStatistics, shrinkage: float | None, samples: BaseSamples, params: TrainBaseParams
) -> FeatureSpace:
    """The space with background prototypes, not calibrated yet."""
    transform = statistics.transform(shrinkage)
    prototypes = np.zeros((1, transform.projection.shape[1]), np.float32)
    if len(samples.background):
        count = min(params.background_prototypes, len(samples.background))
        clusters = KMeans(count, random_state=params.seed, n_init=1).fit(transform(samples.background))
        prototypes = clusters.cluster_centers_.astype(np.float32)
    rows = np.stack(
        [transform(np.concatenate([i.samples for i in found])).mean(axis=0) for found in samples.instances.values()]
    )
    spread = float(rows.var(axis=0, ddof=1).mean()) if len(rows) > 1 else 1.0
    return FeatureSpace(
        tuple(params.features), params.head, transform.centre, transform.projection, prototypes, 1.0, 0.0,
        transform.random_projection, transform.offset, spread if not HEADS[params.head].angular else 0.0,
    )  # fmt: skip


def _calibrated(space: FeatureSpace, found: Calibration) -> FeatureSpace:
    return replace(
        space,
        temperature=found.temperature,
        background_bias=found.background_bias,
        unknown_bias=found.unknown_bias,
        rejection=found.rejection,
    )


def _with_rows(space: FeatureSpace, samples: BaseSamples) -> Classifier:
    classifier = Classifier(space, (), np.zeros((0, space.projection.shape[1]), np.float32), np.zeros(0, np.int64))
    for name, instances in samples.instances.items():
        classifier = classifier.add(name, [instance.samples for instance in instances])
    return classifier
