"""Classified objects that are out of distribution for their class: detects a new part that gets a known class.

A closed set of classes gives every object the best class, however badly it fits. The Mahalanobis distance from the
class mean, under the covariance that all classes share, detects such objects (Lee et al. 2018).

Shape legend: M objects of an image, F width of their features, K components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from samif.watch.observe import Observation
from samif.watch.projection import Array, interleaved_folds, principal_axes, whitening

MIN_OBJECTS = 4
"""A class with fewer reference objects has no usable mean."""
REFERENCE_SHARE = 0.02
"""Share of the reference objects beyond the threshold."""


@dataclass(frozen=True)
class ObjectSpace:
    """The distribution of the objects of each class.

    Attributes:
        centre: (F,) subtracted from every feature vector.
        components: (F, K), in which objects vary about their class mean with unit variance.
        means: class -> (K,) mean of its objects.
        threshold: distance from the class mean beyond which an object is out of distribution.
    """

    centre: Array
    components: Array
    means: dict[str, Array]
    threshold: float = math.inf

    def distances(self, image: Observation) -> Array:
        """Distances of an image's classified objects from their class means; objects of classes without a mean are left
        out."""
        rows = [row for row, name in enumerate(image.names) if name in self.means]
        if not rows:
            return np.zeros(0)
        projected = (image.features[rows].astype(np.float64) - self.centre) @ self.components
        means = np.stack([self.means[image.names[row]] for row in rows])
        return np.asarray(np.linalg.norm(projected - means, axis=1))

    def count_out_of_distribution(self, image: Observation) -> float:
        """Number of an image's classified objects beyond the threshold."""
        return float((self.distances(image) > self.threshold).sum())


def fit_object_space(reference: Sequence[Observation], components: int) -> tuple[ObjectSpace | None, list[float]]:
    """Fit the distribution of objects, with a threshold that REFERENCE_SHARE of the reference objects exceed.

    Returns:
        The distribution, none where no class has enough objects; and the number of out-of-distribution objects in each
        reference image, judged by the other folds.
    """
    space = fit_class_means(reference, components)
    distances: list[Array] = [np.zeros(0)] * len(reference)
    for training, held_out in interleaved_folds(len(reference)):
        fitted = fit_class_means([reference[index] for index in training], components)
        if fitted is not None:
            for index in held_out:
                distances[index] = fitted.distances(reference[index])
    pooled = np.concatenate(distances)
    if space is None or not len(pooled):
        return None, [0.0] * len(reference)
    threshold = float(np.quantile(pooled, 1.0 - REFERENCE_SHARE))
    return replace(space, threshold=threshold), [float((found > threshold).sum()) for found in distances]


def fit_class_means(reference: Sequence[Observation], components: int) -> ObjectSpace | None:
    """Fit the distribution, without a threshold, to the classified objects of reference images; none where no class has
    MIN_OBJECTS objects. At most `components` components, never more than an eighth of the objects."""
    names = np.array([name for image in reference for name in image.names])
    known = sorted(name for name in set(names.tolist()) if (names == name).sum() >= MIN_OBJECTS)
    if not known:
        return None
    features = np.concatenate([image.features for image in reference if image.names]).astype(np.float64)
    rows = np.isin(names, known)
    names, features = names[rows], features[rows]
    centre, axes = principal_axes(features, max(1, min(components, len(features) // 8, features.shape[1])))
    projected = (features - centre) @ axes
    means = {name: projected[names == name].mean(axis=0) for name in known}
    within = projected - np.stack([means[name] for name in names])
    whiten = whitening(within, assume_centered=True)
    return ObjectSpace(centre, axes @ whiten, {name: mean @ whiten for name, mean in means.items()})
