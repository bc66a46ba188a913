"""Features of a patch grid under masks, weighted by the exact share of each cell that a mask covers.

Masks are taken in image pixels, so nothing of the padding of the encoder's square can be under one, and a mask
that is thinner than a cell is weighted by what it covers of it (as in `samif.masks.pooling`).

Shape legend: N masks of one image, S feature channels, g cells along a side of the padded square.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.masks.rle import Rle, boxes, part


def cover(masks: Sequence[Rle], cells: int) -> NDArray[np.float32]:
    """The share (N, cells, cells), 0..1, of each cell of the padded square that each mask covers.

    The square's side is the image's longer one; the image lies in its top left corner.
    """
    shares = np.zeros((len(masks), cells, cells), dtype=np.float32)
    for share, mask, (x, y, width, height) in zip(shares, masks, boxes(masks).astype(int), strict=True):
        side = max(mask["size"])
        inside = part(mask, x, y, width, height).astype(np.float32)
        share[:] = _overlap(cells, side, y, y + height) @ inside @ _overlap(cells, side, x, x + width).T
    return shares


def mean_under(features: Tensor, masks: Sequence[Rle]) -> NDArray[np.float32]:
    """Mean (N, S) of the cells of `features` (S, g, g) under each mask, weighted by cover; zero for an empty mask."""
    weight = cover(masks, features.shape[-1]).reshape(len(masks), features[0].numel())
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(weight @ features.float().flatten(1).numpy().T, dtype=np.float32)


def _overlap(cells: int, side: int, start: int, stop: int) -> NDArray[np.float32]:
    """How much of each cell lies in each pixel of `start` to `stop` along one axis, (cells, stop - start)."""
    edges = np.arange(cells + 1) * (side / cells)
    pixels = np.arange(start, stop)
    length = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(length.clip(0.0) * (cells / side), dtype=np.float32)
