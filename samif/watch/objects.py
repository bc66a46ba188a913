"""Named objects that are unlike others of their name: what finds a new part that the classifier calls by an old name.

A closed set of classes gives every object the name that fits best, however badly. The distance to the class mean under
the covariance that all classes share tells such objects apart (Lee et al. 2018).

Shape legend: M objects, F width of their features, K directions, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from samif.watch.observe import Observation

Array = NDArray[np.float64]
LEAST_OBJECTS = 4
"""A class with fewer reference objects has no mean to be far from."""
STRANGE_SHARE = 0.02
"""Of ordinary objects that are called strange."""
PARTS = 10
"""Of the reference images, each judged by the others."""


@dataclass(frozen=True)
class ObjectSpace:
    """Where the objects of each class lie.

    Attributes:
        centre: (F,) taken off every feature vector.
        directions: (F, K), in which objects vary about their class mean with unit variance.
        means: class -> (K,).
        edge: distance from its class mean beyond which an object is strange.
    """

    centre: Array
    directions: Array
    means: dict[str, Array]
    edge: float = math.inf

    def distances(self, seen: Observation) -> Array:
        """How far the named objects of an image lie from their class means; those without such a mean are left out."""
        rows = [row for row, name in enumerate(seen.names) if name in self.means]
        if not rows:
            return np.zeros(0)
        places = (seen.features[rows].astype(np.float64) - self.centre) @ self.directions
        return np.asarray(np.linalg.norm(places - np.stack([self.means[seen.names[row]] for row in rows]), axis=1))

    def strange(self, seen: Observation) -> float:
        """How many named objects of an image lie beyond the edge."""
        return float((self.distances(seen) > self.edge).sum())


def learn_objects(seen: Sequence[Observation], directions: int) -> tuple[ObjectSpace | None, list[float]]:
    """Where objects lie in reference images, and how many strange ones each of these images has.

    By themselves, reference objects would hardly ever be strange: each part of the images is judged by all others.
    The edge is what one object of fifty is beyond.
    """
    space = object_space(seen, directions)
    away: list[Array] = [np.zeros(0)] * len(seen)
    for part in range(PARTS):
        others = object_space([o for i, o in enumerate(seen) if i % PARTS != part], directions)
        if others is not None:
            for index in range(part, len(seen), PARTS):
                away[index] = others.distances(seen[index])
    everything = np.concatenate(away)
    if space is None or not len(everything):
        return None, [0.0] * len(seen)
    edge = float(np.quantile(everything, 1.0 - STRANGE_SHARE))
    return replace(space, edge=edge), [float((found > edge).sum()) for found in away]


def object_space(seen: Sequence[Observation], directions: int) -> ObjectSpace | None:
    """Learn it, without an edge, from the named objects of reference images; none where no class has enough objects.

    Covariances of few objects are guesses, so they are taken in at most `directions` principal directions, never more
    than an eighth of the objects, and shrunk (Ledoit and Wolf 2004).
    """
    names = np.array([name for image in seen for name in image.names])
    known = {name for name in sorted(set(names.tolist())) if (names == name).sum() >= LEAST_OBJECTS}
    if not known:
        return None
    features = np.concatenate([image.features for image in seen if image.names]).astype(np.float64)
    rows = np.isin(names, sorted(known))
    names, features = names[rows], features[rows]
    centre = features.mean(axis=0)
    scale = np.maximum(features.std(axis=0), 1e-9)
    count = max(1, min(directions, len(features) // 8, features.shape[1]))
    axes = PCA(n_components=count, svd_solver="full").fit((features - centre) / scale).components_.T / scale[:, None]
    places = (features - centre) @ axes
    means = {name: places[names == name].mean(axis=0) for name in sorted(known)}
    within = places - np.stack([means[name] for name in names])
    variance, turn = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(within).covariance_)
    whiten = turn / np.sqrt(np.maximum(variance, 1e-9))
    return ObjectSpace(centre, axes @ whiten, {name: mean @ whiten for name, mean in means.items()})
