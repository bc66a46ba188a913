"""Images that show nearly the same: found by small thumbnails that are laid over each other.

Whole-image embeddings were tried first. On a line with a fixed camera every image has nearly one embedding: of the
images of `tote_dev`, different scenes were more alike (0.95) than one scene before and after a shift of 1 % (0.90).

Shape legend: N images, T cells along a thumbnail's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float32]

T = 64
SHIFT = 4
"""Cells by which one image may be moved against the other: 6 % of its width, what a hand moves between two photographs
of a series."""
BLOCK = 4
"""Cells along a side of the blocks that are compared: one differing part of an image is enough to make it another."""
DIFFERENT = 0.7
"""Difference of the most different block, in standard deviations of an image's colours, from which two images are
different. Re-encoded, resized, brighter, moved by 1 %, cropped by 2 % or turned by 2 degrees, all of 300 copies of
images of tote_dev and of microcontrollers stay below 0.7; on the demo line, whose textures are finer, so do 96 % of the
moved and cropped copies and seven of ten of the turned ones. Different images differ by 0.75 or more on tote_dev, under
a fixed camera, by 1.18 on microcontrollers and by 1.41 on the demo line."""
COARSE_DIFFERENT = 0.45
"""Mean difference at an eighth of the resolution above which two images are not laid over each other at all."""
NEAREST = 6
"""Other images that each image is laid over: near-duplicates are among the nearest, and groups are joined."""
LEAST_CONTRAST = 4.0
"""Standard deviation of an image's colours (0..255) below which it is nearly uniform, and noise is not enlarged."""


@dataclass(frozen=True)
class NearDuplicates:
    """Two images, by their rows, and the difference of their most different block."""

    first: int
    second: int
    difference: float


def thumbnail(pixels: NDArray[np.uint8]) -> Array:
    """An image (H, W, 3) uint8 RGB -> (T, T, 3) without its mean brightness and contrast."""
    small = np.asarray(Image.fromarray(pixels).resize((T, T), Image.Resampling.BOX), dtype=np.float32)
    return np.asarray((small - small.mean()) / max(float(small.std()), LEAST_CONTRAST), dtype=np.float32)


def difference(a: Array, b: Array) -> float:
    """Difference of the most different block of two thumbnails (T, T, 3), where they fit best."""
    most = 2 * SHIFT  # in half cells
    places = [(dy, dx) for dy in range(-most, most + 1, 4) for dx in range(-most, most + 1, 4)]
    best = min((_moved(a, b, dy, dx), dy, dx) for dy, dx in places)
    for step in (2, 1):
        around = [
            (dy, dx)
            for dy in range(best[1] - step, best[1] + step + 1, step)
            for dx in range(best[2] - step, best[2] + step + 1, step)
            if max(abs(dy), abs(dx)) <= most
        ]
        best = min(best, *((_moved(a, b, dy, dx), dy, dx) for dy, dx in around))
    return best[0]


def near_duplicates(thumbnails: Sequence[Array]) -> list[NearDuplicates]:
    """Pairs of nearly equal images among N, the most alike first."""
    if len(thumbnails) < 2:
        return []
    stacked = np.stack(thumbnails)
    cells = _cells(stacked)
    pairs = set()
    for row, values in enumerate(cells):
        apart = np.abs(cells - values).mean(axis=1)
        apart[row] = np.inf
        nearest = np.argsort(apart, kind="stable")[:NEAREST]
        pairs |= {(min(row, int(n)), max(row, int(n))) for n in nearest if apart[n] < COARSE_DIFFERENT}
    found = [NearDuplicates(i, j, difference(stacked[i], stacked[j])) for i, j in sorted(pairs)]
    return sorted((pair for pair in found if pair.difference < DIFFERENT), key=lambda pair: pair.difference)


class Thumbnails:
    """Thumbnails of N images, of which one at a time is compared with others."""

    def __init__(self, thumbnails: Sequence[Array]) -> None:
        self._all = np.stack(thumbnails) if thumbnails else np.zeros((0, T, T, 3), dtype=np.float32)
        self._cells = _cells(self._all)

    def is_near(self, row: int, others: Sequence[int]) -> bool:
        """Whether one of `others` is a near-duplicate of the image `row`."""
        if not others:
            return False
        rows = np.array(others)
        apart = np.abs(self._cells[rows] - self._cells[row]).mean(axis=1)
        nearest = rows[np.argsort(apart, kind="stable")[:NEAREST]][np.sort(apart)[:NEAREST] < COARSE_DIFFERENT]
        return any(difference(self._all[row], self._all[other]) < DIFFERENT for other in nearest)


def _cells(thumbnails: Array) -> Array:
    """(N, T, T, 3) at an eighth of the resolution, (N, 192)."""
    count = len(thumbnails)
    return np.asarray(thumbnails.reshape(count, 8, T // 8, 8, T // 8, 3).mean(axis=(2, 4)).reshape(count, 192))


def groups_of(count: int, pairs: Sequence[NearDuplicates]) -> NDArray[np.int64]:
    """Group number (count,) of each image; near-duplicates, and what is nearly equal to them, share one."""
    rows, columns = ([getattr(pair, name) for pair in pairs] for name in ("first", "second"))
    graph = coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _moved(a: Array, b: Array, dy: int, dx: int) -> float:
    """The same for `b` moved by (dy, dx) half cells; between cells it is interpolated."""
    side = T - 2 * SHIFT
    rows = [slice(SHIFT + y, SHIFT + y + side) for y in {dy // 2, -(-dy // 2)}]
    columns = [slice(SHIFT + x, SHIFT + x + side) for x in {dx // 2, -(-dx // 2)}]
    moved = sum(b[row, column] for row in rows for column in columns) / (len(rows) * len(columns))
    part = a[SHIFT:-SHIFT, SHIFT:-SHIFT] - moved
    blocks = part.reshape(side // BLOCK, BLOCK, side // BLOCK, BLOCK, 3).mean(axis=(1, 3))
    return float(np.abs(blocks).mean(axis=-1).max())
