"""Features of labelled objects, pooled under the masks that people drew.

Shape legend: N labels of one image, V views, C embedding channels, S semantic channels, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samif.inference.propose import small_and_whole
from samif.masks.patch_pooling import mean_under
from samif.masks.pooling import pool
from samif.masks.rle import Rle, boxes, decode
from samif.sam.frame import Frame, View, split_views

Array = NDArray[np.float32]


def label_features(embedding: Tensor, masks: Sequence[Rle], tiles: int = 1, semantic: Tensor | None = None) -> Array:
    """Features (N, D) of the masks of one image, with `semantic` features behind them where there are any.

    An object that is small is taken from the tiles that show it whole, others from the whole image.

    Args:
        embedding: (V * C, h, w) of the image.
        masks: N run-length codes in image pixels.
        tiles: tiles per image side that `embedding` was made with.
        semantic: (S, g, g).
    """
    if not masks:
        return np.zeros((0, 0), dtype=np.float32)
    height, width = masks[0]["size"]
    frame = Frame(height, width, max(height, width), tiles)  # pooling takes no notice of the encoder's pixels
    (whole, seen), *parts = split_views(embedding, frame)
    pooled = _pooled(seen, whole, masks)
    total, count = np.zeros_like(pooled), np.zeros((len(masks), 1), dtype=np.float32)
    for view, seen in parts:
        inside = boxes(masks) - np.array([view.x, view.y, 0.0, 0.0])
        shown = (inside[:, :2] >= 0).all(axis=1)
        shown &= (inside[:, :2] + inside[:, 2:] <= (view.frame.width, view.frame.height)).all(axis=1)
        rows = np.flatnonzero(shown & small_and_whole(inside, view, frame)).tolist()
        if rows:
            total[rows] += _pooled(seen, view, [masks[row] for row in rows])
            count[rows] += 1.0
    pooled = np.where(count > 0, total / np.maximum(count, 1.0), pooled)
    if semantic is None:
        return np.asarray(pooled, dtype=np.float32)
    return np.concatenate([pooled, mean_under(semantic, masks)], axis=1).astype(np.float32)


def _pooled(seen: Tensor, view: View, masks: Sequence[Rle]) -> Array:
    cells = [view.frame.low_masks(torch.from_numpy(view.cut(decode([mask]))), 4 * seen.shape[-1]) for mask in masks]
    return np.asarray(pool(seen, torch.cat(cells)).numpy(), dtype=np.float32)
