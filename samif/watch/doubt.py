"""Which classes doubtful objects are like: what finds a new part among strangers of all kinds.

A line has always objects that bear no sure name: dirt, parts of other lines, known parts that lie badly. One more of
them in every other image is hardly seen in their number. But a new part is like the same known classes again and
again, and in that direction ordinary doubt varies little.

Shape legend: N reference images, C classes, K directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from samif.watch.observe import Observation
from samif.watch.space import Array, Space

PARTS = 10
"""Of the reference images, each placed by the others."""


def learn_doubt(seen: Sequence[Observation], directions: int) -> tuple[Space, Array]:
    """The directions in which the doubt about reference images varies, and where these images lie in them (N, K).

    At most `directions`, never more than a quarter of the images, scaled by a shrunk covariance (Ledoit and Wolf
    2004). By their own covariance reference images would scatter less than others do: each part is placed by all
    others'.
    """
    doubt = np.stack([image.doubt for image in seen]).astype(np.float64)
    centre, scale = doubt.mean(axis=0), np.maximum(doubt.std(axis=0), 1e-9)
    count = max(1, min(directions, len(doubt) // 4, doubt.shape[1]))
    axes = np.linalg.svd((doubt - centre) / scale, full_matrices=False)[2][:count].T / scale[:, None]
    raw = (doubt - centre) @ axes
    places, part = np.empty_like(raw), np.arange(len(raw)) % PARTS
    for each in range(PARTS):
        places[part == each] = raw[part == each] @ _whitening(raw[part != each])
    return Space(centre, axes @ _whitening(raw)), places


def _whitening(places: Array) -> NDArray[np.float64]:
    """The symmetric map (K, K) that gives these places (N, K) unit variance: symmetric, so that the maps of different
    parts turn nothing against each other."""
    variance, axes = np.linalg.eigh(LedoitWolf().fit(places).covariance_)
    return np.asarray((axes / np.sqrt(np.maximum(variance, 1e-9))) @ axes.T)
