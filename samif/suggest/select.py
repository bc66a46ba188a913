"""Choose the images to label next: typical ones, then uncertain and diverse ones, no two of them near-duplicates.

The first come from the idea of TypiClust (Hacohen et al., 2022): one image from the middle of each cluster that no
labelled image covers. The others follow DropQuery (Gupte et al., 2024): images whose names change under feature
dropout, one from each of their clusters.

Shape legend: N images to choose from, L labelled images, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

Features = NDArray[np.float64]
Strategy = Literal["typical", "uncertain", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

NEAR_DUPLICATE = 0.75
"""Cosine similarity of image features, less their mean, from which two images are near-duplicates. Measured on 22 drawn
scenes with the encoder `photo`: 0.39 at most between different ones, 0.78 or more between a scene and its copy that is
recompressed, brightened, moved, cut at the border or noisy (`tiny`: 0.49; 0.90 or more, moved and cut ones apart)."""
SAME_IMAGE = 0.999
"""The same with the mean, where all images are alike: less their mean, only noise would be left."""
NEIGHBOURS = 20
"""Nearest neighbours that make an image typical."""
SHORTLIST = 3
"""Uncertain images per image that is still wanted, of which diverse ones are taken."""


@dataclass(frozen=True)
class Choice:
    """A chosen image: its index, by what it was chosen, and a phrase that says why."""

    index: int
    by: Strategy
    why: str


def choose(
    features: Features,
    labelled: Features,
    uncertainty: NDArray[np.float64],
    count: int,
    strategy: Strategy = "typical",
    seed: int = 0,
    near_duplicate: float = NEAR_DUPLICATE,
) -> list[Choice]:
    """Choose up to `count` images, best first; fewer where the others are near-duplicates.

    `typical` makes `count` clusters of all images, takes the densest image of each cluster that no labelled image
    covers, largest cluster first, and fills up with uncertain ones. `uncertain` takes those alone, `random` any.

    Args:
        features: (N, D), one vector per image.
        labelled: (L, D) of the images that are labelled already; L may be 0.
        uncertainty: (N,) in 0..1.
        near_duplicate: as NEAR_DUPLICATE.
    """
    pool = _Pool(features, labelled.reshape(-1, features.shape[1]), uncertainty, near_duplicate)
    orders = {"typical": (_typical, _uncertain), "uncertain": (_uncertain,), "random": (_random,)}[strategy]
    found: list[Choice] = []
    for order in orders:
        wanted = count - len(found)
        taken = (choice for choice in order(pool, wanted, seed) if pool.take(choice.index))
        found += islice(taken, wanted)
    return found


class _Pool:
    """The images, less their common mean and of unit length, and which of them may still be chosen."""

    def __init__(
        self, features: Features, labelled: Features, uncertainty: NDArray[np.float64], near_duplicate: float
    ) -> None:
        every = np.concatenate([features, labelled]).astype(np.float64)
        self._plain = _unit(every)
        self._near_duplicate = near_duplicate
        self.all = _unit(every - every.mean(axis=0)) if len(every) else every
        self.uncertainty = uncertainty
        self.size = len(features)
        self.free = np.ones(self.size, dtype=bool)
        for row in range(self.size, len(every)):
            self.free &= ~self._near(row)

    def take(self, index: int) -> bool:
        """Whether an image may be chosen; then it and its near-duplicates may not be again."""
        if not self.free[index]:
            return False
        self.free &= ~self._near(index)
        self.free[index] = False
        return True

    def _near(self, row: int) -> NDArray[np.bool_]:
        similar = self.all[: self.size] @ self.all[row] >= self._near_duplicate
        return np.asarray(similar | (self._plain[: self.size] @ self._plain[row] >= SAME_IMAGE))


def _random(pool: _Pool, wanted: int, seed: int) -> Iterator[Choice]:
    for index in np.random.default_rng(seed).permutation(pool.size).tolist():
        yield Choice(index, "random", "drawn at random")


def _typical(pool: _Pool, wanted: int, seed: int) -> Iterator[Choice]:
    cluster_of = _clusters(pool.all, wanted, seed)
    covered = set(cluster_of[pool.size :].tolist())
    members = [np.flatnonzero(cluster_of == k) for k in range(cluster_of.max(initial=-1) + 1) if k not in covered]
    for rows in sorted(members, key=lambda rows: (-len(rows), rows[0])):
        why = f"typical of {len(rows)} images, none labelled" if len(rows) > 1 else "unlike all others"
        dense = rows[np.argsort(_spacing(pool.all[rows]), kind="stable")]
        yield from (Choice(int(row), "typical", why) for row in dense[pool.free[dense]][:1])


def _uncertain(pool: _Pool, wanted: int, seed: int) -> Iterator[Choice]:
    free = np.flatnonzero(pool.free)
    ranked = free[np.argsort(-pool.uncertainty[free], kind="stable")]
    shortlist = ranked[: SHORTLIST * wanted]
    cluster_of = _clusters(pool.all[shortlist], wanted, seed)
    middle = []
    for k in range(cluster_of.max(initial=-1) + 1):
        rows = shortlist[cluster_of == k]
        centre = pool.all[rows].mean(axis=0)
        middle.append(rows[((pool.all[rows] - centre) ** 2).sum(axis=1).argmin()])
    diverse = sorted(middle, key=lambda row: (-pool.uncertainty[row], row))
    for row in [*diverse, *ranked]:
        changed = round(100 * float(pool.uncertainty[row]))
        yield Choice(int(row), "uncertain", f"names of {changed} % of its objects change under dropout")


def _clusters(points: Features, number: int, seed: int) -> NDArray[np.int64]:
    """Cluster 0, 1, ... of each point (N, D), in at most `number` clusters, none of them empty."""
    number = min(number, len(np.unique(points, axis=0)))
    if number < 2:
        return np.zeros(len(points), dtype=np.int64)
    labels = KMeans(number, n_init=3, random_state=seed).fit_predict(points)
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def _spacing(points: Features) -> NDArray[np.float64]:
    """Mean distance (N,) of each point to its nearest neighbours among the others."""
    near = min(NEIGHBOURS, len(points) - 1)
    if near == 0:
        return np.zeros(len(points))
    return np.asarray(NearestNeighbors(n_neighbors=near).fit(points).kneighbors()[0].mean(axis=1))


def _unit(vectors: Features) -> Features:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
