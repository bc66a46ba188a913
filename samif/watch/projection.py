"""Projections of image statistics to few whitened components, fitted on reference images.

Shape legend: N reference images or objects, D statistics of each, K components.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

Array = NDArray[np.float64]
FOLDS = 10
"""Reference images are projected by what was fitted on the other folds, or they would vary less than new images do."""
EPSILON = 1e-9
"""Lower bound of standard deviations and variances that are divided by."""


@dataclass(frozen=True)
class Projection:
    """An affine map: minus `centre` (D,), times `components` (D, K); reference images have unit variance behind it."""

    centre: Array
    components: Array

    def apply(self, values: NDArray[np.floating]) -> Array:
        """Project statistics (..., D) to components (..., K)."""
        return np.asarray((values.astype(np.float64) - self.centre) @ self.components)


@dataclass(frozen=True)
class Region:
    """The region in which the level of an undisturbed stream stays.

    Attributes:
        projection: of the image statistics that the level averages.
        centre: (K,) mean projection of the reference images.
        radius: largest Mahalanobis distance of a level from `centre`; infinity where the chart is not monitored.
    """

    projection: Projection
    centre: Array
    radius: float


def mahalanobis(offset: Array, weight: float) -> Array:
    """Distances (...) of EWMA levels from the reference mean, from whitened offsets (..., K), in standard errors of the
    level of an undisturbed stream: the square root of MEWMA's T squared. `weight` is that of the newest image."""
    return np.asarray(np.linalg.norm(offset, axis=-1) / math.sqrt(weight / (2.0 - weight)))


def principal_axes(values: Array, components: int) -> tuple[Array, Array]:
    """The mean (D,) of values (N, D), and the axes (D, K) of the first principal components of the standardised values,
    in units of the values; not whitened."""
    centre, scale = values.mean(axis=0), np.maximum(values.std(axis=0), EPSILON)
    axes = np.linalg.svd((values - centre) / scale, full_matrices=False)[2][:components]
    return centre, axes.T / scale[:, None]


def whitening(values: Array, assume_centered: bool = False) -> Array:
    """The symmetric map (K, K) to unit variance of values (N, K), by a shrunk covariance (Ledoit and Wolf 2004).

    Symmetric, so that maps fitted on different folds do not rotate against each other.
    """
    covariance = LedoitWolf(assume_centered=assume_centered).fit(values).covariance_
    variance, axes = np.linalg.eigh(covariance)
    return np.asarray((axes / np.sqrt(np.maximum(variance, EPSILON))) @ axes.T)


def interleaved_folds(count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices (training, held out) of each fold; image i belongs to fold i modulo FOLDS, as neighbours are alike."""
    fold = np.arange(count) % FOLDS
    for each in range(FOLDS):
        yield np.flatnonzero(fold != each), np.flatnonzero(fold == each)
