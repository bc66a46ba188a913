"""The ladder of heads: how each makes its frozen space from base samples, and how it compares a sample with a row.

All share one form, so that adding and removing a class is exact for each of them: a row is a mean in a space that the
base classifier froze, and depends on the statistics of its own class alone.

| head      | space                                                              | similarity to a row     |
|-----------|--------------------------------------------------------------------|-------------------------|
| `cosine`  | features as they are (SAM-IF)                                      | angle                   |
| `centred` | centred, each feature at unit deviation (SimpleShot, Wang 2019)    | angle                   |
| `lda`     | whitened by the shrunk within-class covariance of the base         | minus half the distance |
| `ranpac`  | random ReLU features first (RanPAC, McDonnell 2023), then as `lda` | minus half the distance |

Shape legend: N samples, D feature width, M random features, d projected width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

Array = NDArray[np.float32]
HeadName = Literal["cosine", "centred", "lda", "ranpac"]

RANDOM_FEATURES = 1024
"""Random features of `ranpac`: more would make each version of a classifier tens of megabytes."""


@dataclass(frozen=True)
class HeadSpec:
    """Properties of a head."""

    centred: bool
    whitened: bool
    random_features: bool

    @property
    def angular(self) -> bool:
        """Rows are compared by angle; their length has no effect."""
        return not self.whitened


HEADS: dict[HeadName, HeadSpec] = {
    "cosine": HeadSpec(centred=False, whitened=False, random_features=False),
    "centred": HeadSpec(centred=True, whitened=False, random_features=False),
    "lda": HeadSpec(centred=True, whitened=True, random_features=False),
    "ranpac": HeadSpec(centred=True, whitened=True, random_features=True),
}


@dataclass(frozen=True)
class Transform:
    """Feature vectors -> the space of a head.

    Attributes:
        centre: (D,) taken off every feature vector.
        random_projection: (D, M) random directions whose positive part is taken, or None.
        projection: (D or M, d).
        offset: (d,) taken off the result: the centre of the random features; None without.
    """

    centre: Array
    random_projection: Array | None
    projection: Array
    offset: Array | None

    def __call__(self, features: Array) -> Array:
        """(N, D) -> (N, d)."""
        moved = features - self.centre
        if self.random_projection is not None:
            moved = np.maximum(moved @ self.random_projection, 0.0)
        projected = moved @ self.projection
        if self.offset is not None:
            projected = projected - self.offset
        return np.asarray(projected, dtype=np.float32)


@dataclass(frozen=True)
class BaseStatistics:
    """Statistics of the base samples from which the space of a head is made, for any shrinkage of the covariance."""

    head: HeadName
    centre: NDArray[np.float64]
    random_projection: NDArray[np.float64] | None
    feature_centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    estimated: float

    @classmethod
    def of(cls, head: HeadName, groups: Sequence[Array], seed: int) -> BaseStatistics:
        """From the samples (N, D) of each base class; `seed` draws the random features of `ranpac`."""
        spec = HEADS[head]
        samples = [group.astype(np.float64) for group in groups]
        # every class has the same weight in the centre, however many instances it has
        centre = np.stack([group.mean(axis=0) for group in samples]).mean(axis=0)
        if not spec.centred:
            centre = np.zeros_like(centre)
        random_projection = None
        if spec.random_features:
            deviation = np.maximum(np.concatenate(samples).std(axis=0), 1e-6)
            directions = np.random.default_rng([seed, 7]).normal(size=(len(centre), RANDOM_FEATURES))
            random_projection = directions / deviation[:, None] / np.sqrt(len(centre))
        moved = [
            group - centre if random_projection is None else np.maximum((group - centre) @ random_projection, 0.0)
            for group in samples
        ]
        middle = np.stack([group.mean(axis=0) for group in moved]).mean(axis=0)
        if not spec.whitened:
            scale = np.maximum(np.concatenate(moved).std(axis=0), 1e-6) if spec.centred else np.ones_like(centre)
            return cls(head, centre, random_projection, middle, scale, np.zeros(0), np.zeros((0, 0)), 0.0)
        within = np.concatenate([group - group.mean(axis=0) for group in moved])
        scale = np.maximum(within.std(axis=0), 1e-6)
        empirical = within.T @ within / len(within) / np.outer(scale, scale)
        _, estimated = ledoit_wolf(within / scale, assume_centered=True)
        values, vectors = np.linalg.eigh(empirical)
        return cls(head, centre, random_projection, middle, scale, np.maximum(values, 0.0), vectors, float(estimated))

    def transform(self, shrinkage: float | None = None) -> Transform:
        """The head's space, its covariance shrunk this far (0..1) toward a multiple of the identity.

        None takes the estimate of Ledoit and Wolf, which counts samples of one instance as independent and so
        shrinks too little.
        """
        centre = self.centre.astype(np.float32)
        if not HEADS[self.head].whitened:
            return Transform(centre, None, np.diag(1.0 / self.scale).astype(np.float32), None)
        share = self.estimated if shrinkage is None else shrinkage
        values = (1.0 - share) * self.values + share * self.values.mean()
        root = (self.vectors / np.sqrt(np.maximum(values, 1e-6))) @ self.vectors.T
        projection = root / self.scale[:, None]
        if self.random_projection is None:
            return Transform(centre, None, projection.astype(np.float32), None)
        offset = (self.feature_centre @ projection).astype(np.float32)
        return Transform(centre, self.random_projection.astype(np.float32), projection.astype(np.float32), offset)


def similarity(head: HeadName, projected: NDArray[np.float64], vectors: Array) -> NDArray[np.float64]:
    """Similarity (N, M) of samples (N, d) and vectors (M, d): their cosine, or minus half their squared distance up to
    the term that all vectors share."""
    others = vectors.astype(np.float64)
    if HEADS[head].angular:
        return np.asarray(unit(projected) @ unit(others).T)
    return np.asarray(projected @ others.T - 0.5 * (others**2).sum(axis=1)[None, :])


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (N, d) at length one; zero stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
