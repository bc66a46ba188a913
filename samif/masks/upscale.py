"""Low-resolution logits -> masks in image pixels, computed only where each object is.

Shape legend: N masks, r cells a side.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from samif.masks.rle import Rle, encode_patches

Floats = NDArray[np.float32]
Axis = tuple[NDArray[np.int64], NDArray[np.int64], Floats]
"""Per pixel: the cells before and after it, and the share (h,) of the second."""


def encode_upscaled(logits: Floats, height: int, width: int) -> list[Rle]:
    """Logits (N, r, r) over the square of the longer side -> N codes of `height` x `width` pixels, set where the
    bilinearly interpolated logit is above 0: what `torch.nn.functional.interpolate` without aligned corners gives, cut
    to the image. A mask costs time and memory by the size of its object, not of the image."""
    return encode_patches(_patches(logits, height, width), height, width)


def upscaled(logits: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """The mask (height, width) of logits (r, r), as `encode_upscaled` gives it."""
    mask = np.zeros((height, width), dtype=bool)
    for x, y, patch in _patches(logits[None], height, width):
        mask[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
    return mask


def _patches(logits: Floats, height: int, width: int) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    cells = logits.shape[-1]
    side = max(height, width)
    before, after, share = _axis(cells, side)
    for mask in logits:
        found = mask > 0
        rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            yield 0, 0, np.zeros((0, 0), dtype=bool)
            continue
        # A pixel can be set only where a cell beside it is.
        top, bottom = _pixels(before, after, rows, height)
        left, right = _pixels(before, after, columns, width)
        x = slice(left, right)
        wide = mask[:, before[x]] * (1 - share[x]) + mask[:, after[x]] * share[x]
        y = slice(top, bottom)
        patch = wide[before[y]] * (1 - share[y])[:, None] + wide[after[y]] * share[y][:, None]
        yield left, top, patch > 0


def _axis(cells: int, side: int) -> Axis:
    centre = np.maximum((np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / side) - 0.5, 0)
    before = centre.astype(np.int64)
    return before, np.minimum(before + 1, cells - 1), (centre - before).astype(np.float32)


def _pixels(
    before: NDArray[np.int64], after: NDArray[np.int64], found: NDArray[np.int64], most: int
) -> tuple[int, int]:
    """First pixel, and the one after the last, that lie beside any of the cells from found[0] to found[-1]."""
    first = int(np.searchsorted(after, found[0]))
    last = int(np.searchsorted(before, found[-1], side="right"))
    return min(first, most), min(last, most)
