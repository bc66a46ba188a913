"""Choose the images to label next: typical ones, then uncertain and diverse ones, no two of them near-duplicates.

The first come from the idea of TypiClust (Hacohen et al., 2022): one image from the middle of each cluster that no
labelled image covers. The others follow DropQuery (Gupte et al., 2024): images whose names change under feature
dropout, one from each of their clusters.

Shape legend: N images to choose from, L labelled images, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from samif.dataset.near_duplicates import Array, Thumbnails

Features = NDArray[np.float64]
Strategy = Literal["typical", "uncertain", "random"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

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
    thumbnails: Sequence[Array],
    count: int,
    strategy: Strategy = "typical",
    seed: int = 0,
) -> list[Choice]:
    """Choose up to `count` images, best first; fewer where the others are near-duplicates.

    `typical` makes `count` clusters of all images, takes the densest image of each cluster that no labelled image
    covers, largest cluster first, and fills up with uncertain ones. `uncertain` takes those alone, `random` any.

    Args:
        features: (N, D), one vector per image.
        labelled: (L, D) of the images that are labelled already; L may be 0.
        uncertainty: (N,) in 0..1.
        thumbnails: of the N images, then of labelled ones, as far as there are any (`samif.dataset.near_duplicates`).
    """
    pool = _Pool(features, labelled.reshape(-1, features.shape[1]), uncertainty, thumbnails)
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
        self, features: Features, labelled: Features, uncertainty: NDArray[np.float64], thumbnails: Sequence[Array]
    ) -> None:
        every = np.concatenate([features, labelled]).astype(np.float64)
        self.all = _unit(every - every.mean(axis=0)) if len(every) else every
        self.uncertainty = uncertainty
        self.size = len(features)
        self._thumbnails = Thumbnails(thumbnails)
        self._free = np.ones(self.size, dtype=bool)
        self._covered = list(range(self.size, len(thumbnails)))
        self._compared = np.zeros(self.size, dtype=np.int64)

    def is_free(self, index: int) -> bool:
        """Whether an image may be chosen: it is not, and no near-duplicate of one that is or that is labelled."""
        if self._free[index]:
            others = self._covered[self._compared[index] :]
            self._compared[index] = len(self._covered)
            self._free[index] = not self._thumbnails.is_near(index, others)
        return bool(self._free[index])

    def take(self, index: int) -> bool:
        """Choose an image if it may be."""
        if not self.is_free(index):
            return False
        self._free[index] = False
        self._covered.append(index)
        return True


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
        free = (row for row in dense.tolist() if pool.is_free(row))
        yield from (Choice(row, "typical", why) for row in islice(free, 1))


def _uncertain(pool: _Pool, wanted: int, seed: int) -> Iterator[Choice]:
    ranked = np.argsort(-pool.uncertainty, kind="stable")
    free = (row for row in ranked.tolist() if pool.is_free(row))
    shortlist = np.array(list(islice(free, SHORTLIST * wanted)), dtype=np.int64)
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
