"""Duplicate removal: one tag per object.

Reported elsewhere as the largest single lever of training-free segmentation; chosen here by measurement (docs/adr).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samif.masks.rle import Rle, overlaps

Scores = NDArray[np.float64]


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


def soften(masks: Sequence[Rle], scores: Scores, features: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Soft merging: lower the score of a mask by how much better masks of its label already say the same.

    The decay of mask i by a better mask j is the share of i inside j, or of j inside i where j is the smaller one,
    times the cosine similarity of their features: a part of an object loses to the whole, two touching objects
    of one class (no overlap) and a different object lying on top (other label) do not.

    Args:
        scores: (N,), higher is better.
        features: (N, d), any scale.
        labels: (N,), only equal labels compete.

    Returns:
        Scores (N,), the best of each group unchanged.
    """
    count = len(scores)
    if count == 0:
        return scores.copy()
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    similar = np.clip(unit @ unit.T, 0.0, 1.0)
    inside = overlaps(masks, masks, within_a=True)
    decay = np.maximum(inside, inside.T) * similar * (labels[:, None] == labels[None, :])
    better = (scores[None, :] > scores[:, None]) | (
        (scores[None, :] == scores[:, None]) & (np.arange(count)[None, :] < np.arange(count)[:, None])
    )
    return np.asarray(scores * (1.0 - (decay * better).max(axis=1)), dtype=np.float64)
