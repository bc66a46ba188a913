"""Base training: the frozen space, the base rows, the background prototypes and what weighs them, in closed form.

Base rows are means like novel rows will be: trained rows would sit further out and be favoured over imprinted ones.
Everything that has to be chosen (how far the covariance is shrunk, and what `calibration` finds) is chosen by how
likely it makes images that had no part in what it judges.

Shape legend: N samples, D feature width, d projected width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sklearn.cluster import KMeans

from samif.classifier.calibration import SHOTS, Calibration, Held, calibrate
from samif.classifier.collect import BaseSamples
from samif.classifier.heads import HEADS, Array, BaseStatistics
from samif.classifier.model import Classifier, FeatureSpace
from samif.config import TrainBaseParams
from samif.errors import SamifError

FOLDS = 4
SHRINKAGES = (None, 0.1, 0.3, 0.5, 0.7)
"""Shares of the identity in the covariance that are tried; None is Ledoit's and Wolf's own estimate."""
MOST_BACKGROUND = 6000
"""Background samples that are clustered: more say nothing new and cost minutes."""


def train_base(
    samples: BaseSamples, params: TrainBaseParams, advance: Callable[[int], None] = lambda _: None
) -> Classifier:
    """Make the base classifier.

    Args:
        advance: called with 1 for each of the `steps(params)` spaces that were fitted.

    Raises:
        SamifError: a class has no instance.
    """
    empty = [name for name, instances in samples.instances.items() if not instances]
    if empty:
        raise SamifError(
            f"base class '{empty[0]}' has no labelled instance in the training images; label some or leave it out"
        )
    samples = _thinned(samples, params.seed)
    if not _shown_apart(samples):
        params = params.model_copy(update={"unknown_weight": 0.0, "rejection": 0.0, "shot_bias": False})
    folds = _folds(samples, params.seed)
    held: dict[float | None, list[Held]] = {shrinkage: [] for shrinkage in _shrinkages(params)}
    for fold in folds:
        learn, check = samples.of(frozenset(samples.images) - fold), samples.of(fold)
        statistics = _statistics(_filled(learn, samples), params)
        for shrinkage, parts in held.items():
            space = _space(statistics, shrinkage, learn.background, samples, params)
            parts.append(Held.of(space, _filled(learn, samples), check, SHOTS if params.shot_bias else ()))
            advance(1)
    found = {shrinkage: calibrate(parts, params) for shrinkage, parts in held.items()}
    shrinkage = min(found, key=lambda choice: found[choice].loss)
    space = _space(_statistics(samples, params), shrinkage, samples.background, samples, params)
    advance(1)
    classifier = _empty(_weighed(space, found[shrinkage]))
    for name, instances in samples.instances.items():
        classifier = classifier.add(name, [instance.samples for instance in instances])
    return classifier


def steps(params: TrainBaseParams) -> int:
    """Spaces that `train_base` fits."""
    return FOLDS * len(_shrinkages(params)) + 1


def _shrinkages(params: TrainBaseParams) -> tuple[float | None, ...]:
    return SHRINKAGES if HEADS[params.head].whitened else (None,)


def _thinned(samples: BaseSamples, seed: int) -> BaseSamples:
    """At most so much background, drawn at random."""
    count = len(samples.background)
    if count <= MOST_BACKGROUND:
        return samples
    rows = np.sort(np.random.default_rng([seed, 3]).permutation(count)[:MOST_BACKGROUND])
    return replace(samples, background=samples.background[rows], background_images=samples.background_images[rows])


def _shown_apart(samples: BaseSamples) -> bool:
    """Whether half of the classes are in two images or more: otherwise nothing tells how an object of a known class
    looks in a new image, and an unknown class would take them all."""
    apart = [len({i.image for i in instances}) > 1 for instances in samples.instances.values()]
    return 2 * sum(apart) >= len(apart)


def _folds(samples: BaseSamples, seed: int) -> list[frozenset[int]]:
    """Images in parts: what is judged on an image has seen none of its objects."""
    images = samples.images
    order = np.random.default_rng([seed, 5]).permutation(len(images))
    return [frozenset(images[i] for i in order[part::FOLDS]) for part in range(FOLDS)]


def _filled(learn: BaseSamples, everything: BaseSamples) -> BaseSamples:
    """With all instances of a class where a part of the images shows none of it."""
    return replace(
        learn, instances={name: found or everything.instances[name] for name, found in learn.instances.items()}
    )


def _statistics(samples: BaseSamples, params: TrainBaseParams) -> BaseStatistics:
    groups = [np.concatenate([i.samples for i in instances]) for instances in samples.instances.values()]
    return BaseStatistics.of(params.head, groups, params.seed)


def _space(
    statistics: BaseStatistics,
    shrinkage: float | None,
    background: Array,
    everything: BaseSamples,
    params: TrainBaseParams,
) -> FeatureSpace:
    """The space with background prototypes, not weighed yet."""
    transform = statistics.transform(shrinkage)
    width = transform.projection.shape[1]
    prototypes = np.zeros((1, width), np.float32)
    negatives = background if len(background) else everything.background
    if len(negatives):
        count = min(params.background_prototypes, len(negatives))
        clusters = KMeans(count, random_state=params.seed, n_init=1).fit(transform(negatives))
        prototypes = clusters.cluster_centers_.astype(np.float32)
    rows = np.stack(
        [transform(np.concatenate([i.samples for i in found])).mean(axis=0) for found in everything.instances.values()]
    )
    spread = float(rows.var(axis=0, ddof=1).mean()) if len(rows) > 1 else 1.0
    return FeatureSpace(
        tuple(params.features), params.head, transform.centre, transform.projection, prototypes, 1.0, 0.0,
        transform.random_projection, transform.offset, spread if not HEADS[params.head].angular else 0.0,
    )  # fmt: skip


def _weighed(space: FeatureSpace, found: Calibration) -> FeatureSpace:
    return replace(
        space,
        temperature=found.temperature,
        background_bias=found.background_bias,
        unknown_bias=found.unknown_bias,
        rejection=found.rejection,
        shot_bias=found.shot_bias,
    )


def _empty(space: FeatureSpace) -> Classifier:
    return Classifier(space, (), np.zeros((0, space.projection.shape[1]), np.float32), np.zeros(0, np.int64))
