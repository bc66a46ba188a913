"""What each labelled object would be called if it and its image had not been labelled.

Shape legend: N labelled objects, D feature width, K components, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf

Array = NDArray[np.float64]

FOLDS = 10
"""Parts into which the images are divided; each is named by what the others teach. Ten keep nine tenths of the
labels."""
COMPONENTS = 128
"""Most principal components kept: covariances of more are not estimated well from some hundred objects."""
SEED = 0


@dataclass(frozen=True)
class LabelledObjects:
    """Features of labelled objects.

    Attributes:
        features: (N, D).
        names: of the classes, C.
        category: (N,) index of each object's class in `names`.
        group: (N,) objects of one image, or of near-duplicate images, share a number.
    """

    features: NDArray[np.float32]
    names: tuple[str, ...]
    category: NDArray[np.int64]
    group: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.features)
        if self.category.shape != (count,) or self.group.shape != (count,):
            raise ValueError(f"expected {count} classes and groups, got {self.category.shape} and {self.group.shape}")

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> LabelledObjects:
        """Some of the objects; a class may be left without one."""
        return LabelledObjects(self.features[rows], self.names, self.category[rows], self.group[rows])

    def renamed(self, category: NDArray[np.int64]) -> LabelledObjects:
        """The same objects under other classes."""
        return LabelledObjects(self.features, self.names, category, self.group)


def folds_of(group: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Which objects teach and which are named (N,), (N,), for each fold; a group is never divided."""
    groups = np.unique(group)
    fold = np.random.default_rng(SEED).permutation(len(groups)) % FOLDS
    of = fold[np.searchsorted(groups, group)]
    for each in np.unique(of):
        yield of != each, of == each


def space_of(features: NDArray[np.float32], category: NDArray[np.int64]) -> tuple[Array, Array]:
    """The centre (D,) and the map (D, K) to a space in which the objects of a class have about unit variance.

    Principal components of the standardised features, then the shrunk covariance within the classes (Ledoit and Wolf).
    """
    values = features.astype(np.float64)
    centre, scale = values.mean(axis=0), values.std(axis=0) + 1e-6
    standard = (values - centre) / scale
    count = max(1, min(COMPONENTS, len(values) // 2, values.shape[1]))
    axes = np.linalg.svd(standard, full_matrices=False)[2][:count].T / scale[:, None]
    projected = (values - centre) @ axes
    within = np.concatenate([_centred(projected[category == c]) for c in np.unique(category)])
    variance, vectors = np.linalg.eigh(ledoit_wolf(within, assume_centered=True)[0])
    return centre, axes @ (vectors / np.sqrt(np.maximum(variance, 1e-9)))


def out_of_fold(objects: LabelledObjects) -> Array:
    """Log-probabilities (N, C) of the classes of each object, learnt from the objects of other folds.

    Nearest class mean in the whitened space; minus infinity for a class that the other folds do not show. One
    temperature, fitted to all objects, makes probabilities of the distances.
    """
    scores = np.full((len(objects.features), len(objects.names)), -np.inf)
    for teach, named in folds_of(objects.group):
        if not teach.any():
            continue
        known = objects.category[teach]
        centre, axes = space_of(objects.features[teach], known)
        at = (objects.features[teach] - centre) @ axes
        asked = (objects.features[named] - centre) @ axes
        for c in np.unique(known):
            members = at[known == c]
            apart = asked - members.mean(axis=0)
            # the mean of few objects is uncertain by 1 / n of their variance
            scores[named, c] = -0.5 * (apart**2).sum(axis=1) / (1.0 + 1.0 / len(members))
    return calibrated(scores, objects.category)


def calibrated(scores: Array, category: NDArray[np.int64]) -> Array:
    """Log-probabilities (N, C) of scores at the temperature that explains the given classes best."""
    rows = np.flatnonzero(np.isfinite(scores[np.arange(len(scores)), category]))
    usable = np.isfinite(scores).any(axis=1)

    def loss(log_temperature: float) -> float:
        found = log_softmax(scores[rows] / np.exp(log_temperature), axis=1)
        return -float(found[np.arange(len(rows)), category[rows]].mean())

    temperature = np.exp(minimize_scalar(loss, bounds=(-2.0, 7.0), method="bounded").x) if len(rows) else 1.0
    result = np.full(scores.shape, -np.inf)
    result[usable] = log_softmax(scores[usable] / temperature, axis=1)
    return result


def _centred(values: Array) -> Array:
    return np.asarray(values - values.mean(axis=0))
