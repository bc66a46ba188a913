"""The border of a mask for the browser: closed lines, holes included. The mask itself travels as run lengths."""

from __future__ import annotations

import math

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray

from samif.masks.rle import Rle, box_of
from samif.masks.rle import part as part_of

Rings = list[list[float]]
"""Closed lines, each as [x1, y1, x2, y2, ...] in image pixels."""
MOST_CELLS = 768
"""Pixels per side of what is traced: a border is drawn on a screen."""
_DECIMALS = 1


def rings_of(rle: Rle, mask: NDArray[np.bool_] | None = None) -> Rings:
    """The border lines of a mask, outer ones and those of holes; a large one is traced at a fraction of its size.

    Args:
        mask: the same mask (H, W), where it is decoded already.
    """
    left, top, width, height = box_of(rle)
    if not width:
        return []
    box = slice(top, top + height), slice(left, left + width)
    part = part_of(rle, left, top, width, height) if mask is None else mask[box]
    step = max(1, math.ceil(max(part.shape) / MOST_CELLS))
    traced = np.pad(part[step // 2 :: step, step // 2 :: step], 1).astype(np.float32)
    if not traced.any():  # thinner than a step
        step, traced = 1, np.pad(part, 1).astype(np.float32)
    lines = contour_generator(z=traced, line_type=LineType.Separate).lines(0.5)
    # of cell (i, j) the centre is at pixel (i - 1) * step + step // 2
    corner = np.array([left, top]) + step // 2 + 0.5 - step
    return [np.round(line * step + corner, _DECIMALS).ravel().tolist() for line in lines if len(line) > 2]
