"""Duplicate removal: one instance per object.

Reported elsewhere as the most effective part of training-free segmentation; chosen here by measurement (docs/adr).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samif.masks.rle import Rle, overlaps

Scores = NDArray[np.float64]

DIFFUSION = 0.5
"""Share of its score that a mask passes on at each step of the random walk."""


def suppress(masks: Sequence[Rle], scores: Scores, iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression on mask IoU.

    Returns:
        Indices of the masks that stay, best score first: none overlaps a better one by more than `iou`.
    """
    return greedy(overlaps(masks, masks), scores, iou)


def greedy(overlap: NDArray[np.float64], scores: Scores, most: float) -> NDArray[np.int64]:
    """Indices that stay, best score first, where `overlap` (N, N) with a better one is at most `most`."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if not kept or overlap[i, kept].max() <= most:
            kept.append(int(i))
    return np.array(kept, dtype=np.int64)


def soften(
    inside: NDArray[np.float64], scores: Scores, features: NDArray[np.float32], labels: NDArray[np.int64]
) -> Scores:
    """Soft merging: lower the score of a mask by its overlap with better masks of its label.

    The decay of mask i by a better mask j is the share of i inside j, or of j inside i where j is the smaller one,
    times the cosine similarity of their features: a part of an object loses to the whole, two touching objects
    of one class (no overlap) and a different object lying on top (other label) do not.

    Args:
        inside: (N, N), the share of mask i that mask j covers.
        scores: (N,), higher is better.
        features: (N, d), any scale.
        labels: (N,), only equal labels compete.

    Returns:
        Scores (N,), the best of each group unchanged.
    """
    return _decayed(inside, scores, scores, _alike(features, labels))


def diffuse(
    inside: NDArray[np.float64], scores: Scores, features: NDArray[np.float32], labels: NDArray[np.int64]
) -> Scores:
    """As `soften`, but who is better is decided by graph diffusion over containment: wholes are preferred to parts.

    Each mask passes its score on to the masks of its label that contain it, in proportion to the share of it inside
    them and to the similarity of their features, again and again (a random walk with restart; Zhou et al., Learning
    with Local and Global Consistency, 2003). A whole that contains many parts ends above each of them, even one that
    scored higher.
    """
    count = len(scores)
    if count == 0:
        return scores.copy()
    alike = _alike(features, labels)
    # only the smaller of two passes its score on: what contains is larger
    upward = inside * alike * (inside > inside.T)
    stays = np.maximum(1.0, upward.sum(axis=1))
    walk = upward / stays[:, None]
    reached = np.linalg.solve(np.eye(count) - DIFFUSION * walk.T, scores)
    return _decayed(inside, scores, reached, alike)


def _alike(features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cosine similarity (N, N) in 0..1 of features of one label; nothing between labels; nothing of itself."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    alike = np.clip(unit @ unit.T, 0.0, 1.0) * (labels[:, None] == labels[None, :])
    np.fill_diagonal(alike, 0.0)
    return np.asarray(alike, dtype=np.float64)


def _decayed(inside: NDArray[np.float64], scores: Scores, rank: Scores, alike: NDArray[np.float64]) -> Scores:
    count = len(scores)
    if count == 0:
        return scores.copy()
    place = np.arange(count)
    better = (rank[None, :] > rank[:, None]) | ((rank[None, :] == rank[:, None]) & (place[None, :] < place[:, None]))
    decay = np.maximum(inside, inside.T) * alike * better
    return np.asarray(scores * (1.0 - decay.max(axis=1)), dtype=np.float64)
