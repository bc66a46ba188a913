"""Masks as polygons of few points, for tools that draw polygons.

Frame: image pixels, x to the right, y down, (0, 0) the outer corner of the first pixel; points are corners of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from scipy import ndimage

from samif.masks.rle import Rle, boxes, overlaps, part

MIN_IOU = 0.99
"""Least IoU of the polygons with the mask, its holes filled."""
_TOLERANCES = (2.0, 1.0, 0.7, 0.5, 0.0)
"""Pixels by which a polygon may leave the border of the mask, tried in turn; 0 is exact."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outlined:
    """A mask as polygons, one per connected part, as [x1, y1, x2, y2, ...]; `holes`: it has holes, which they fill."""

    polygons: list[list[float]]
    holes: bool

    @property
    def joined(self) -> list[float]:
        """One polygon: the parts joined by lines of no width, which enclose no pixel."""
        first, *others = self.polygons
        start = first[:2]
        flat = [*first, *(start if others else [])]
        for other in others:
            flat += [*other, *other[:2], *start]
        return flat


def outline(mask: Rle) -> Outlined:
    """The polygons of a mask that is not empty, with as few points as MIN_IOU allows."""
    x, y, width, height = (int(value) for value in boxes([mask])[0])
    pixels = np.pad(part(mask, x, y, width, height), 1)
    filled = ndimage.binary_fill_holes(pixels)
    assert filled is not None  # an array is made where none is given
    rings = list(_rings(filled))
    (wanted,) = coco_mask.encode(np.asfortranarray(filled[..., None], dtype=np.uint8))
    for tolerance in _TOLERANCES:
        simple = [_simplified(ring, tolerance) for ring in rings]
        flat = [ring.ravel().tolist() for ring in simple if len(ring) >= 3]
        if len(flat) == len(rings):
            drawn = coco_mask.merge(coco_mask.frPyObjects(flat, *filled.shape))
            if tolerance == 0.0 or overlaps([drawn], [wanted])[0, 0] >= MIN_IOU:
                break
    offset = np.array([x - 1, y - 1], dtype=np.float64)  # of the border of one pixel
    return Outlined([(ring + offset).ravel().tolist() for ring in simple], bool(filled.sum() > pixels.sum()))


def _rings(filled: npt.NDArray[np.bool_]) -> Iterator[Points]:
    """Corners (N, 2) of each part of a mask without holes, clockwise, without those on a straight line.

    Parts touch by edges, not by corners, so that exactly one edge of the border begins at each of a part's corners.
    """
    parts, number = ndimage.label(filled)
    for label in range(1, number + 1):
        inside = parts == label
        following: dict[tuple[int, int], tuple[int, int]] = {}
        # from a pixel's corner to the next one, with the pixel to the right: top, right, bottom and left edges
        for (dy, dx), start, end in (
            ((-1, 0), (0, 0), (1, 0)),
            ((0, 1), (1, 0), (1, 1)),
            ((1, 0), (1, 1), (0, 1)),
            ((0, -1), (0, 1), (0, 0)),
        ):
            rows, columns = np.nonzero(inside & ~np.roll(inside, (-dy, -dx), axis=(0, 1)))
            following |= {
                (x + start[0], y + start[1]): (x + end[0], y + end[1])
                for y, x in zip(rows.tolist(), columns.tolist(), strict=True)
            }
        first = next(iter(following))
        ring = [first]
        while (corner := following[ring[-1]]) != first:
            ring.append(corner)
        points = np.array(ring, dtype=np.float64)
        steps = np.roll(points, -1, axis=0) - points
        yield points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]


def _simplified(ring: Points, tolerance: float) -> Points:
    """A ring without the points that lie within `tolerance` pixels of the rest (Douglas and Peucker, 1973)."""
    if tolerance == 0.0 or len(ring) <= 4:
        return ring
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    kept = {0, far}
    spans: list[tuple[int, int]] = [(0, far), (far, len(ring))]
    while spans:
        start, end = spans.pop()
        distance = _distances(closed[start + 1 : end], closed[start], closed[end])
        if len(distance) and distance.max() > tolerance:
            middle = start + 1 + int(distance.argmax())
            kept.add(middle)
            spans += [(start, middle), (middle, end)]
    return ring[sorted(kept)]


def _distances(points: Points, a: Points, b: Points) -> npt.NDArray[np.float64]:
    """Distances (N,) of points (N, 2) from the line through two points."""
    (dx, dy), away = b - a, points - a
    return np.asarray(np.abs(dx * away[:, 1] - dy * away[:, 0]) / max(float(np.hypot(dx, dy)), 1e-9))
