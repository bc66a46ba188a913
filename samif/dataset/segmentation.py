"""One COCO `segmentation` value, checked and turned into the one form that is stored: compressed RLE.

Everything is checked before pycocotools sees it: its C code trusts run lengths and coordinates.
Frame: upright image pixels, x to the right, y down, (0, 0) the outer corner of the first pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

OVERSHOOT = 5.0
"""Pixels by which a polygon may exceed the image: labelling tools round."""

Rle = dict[str, Any]


class BadSegmentation(Exception):
    """A segmentation that is no mask of the image: what is wrong, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def to_rle(segmentation: object, width: int, height: int) -> Rle:
    """Mask of a polygon list, an uncompressed RLE or a compressed RLE.

    Returns:
        {"size": [height, width], "counts": str}, canonical: equal masks give equal strings.

    Raises:
        BadSegmentation: wrong types, not a number, outside the image, another size, or no pixel at all.
    """
    if isinstance(segmentation, dict):
        rle = _from_runs(_runs(segmentation, width, height), width, height)
    elif isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(polygon, width, height) for polygon in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        raise BadSegmentation(
            "has no mask ('segmentation' is missing or empty)",
            "outline the object in the labelling tool and export instance masks, or delete the annotation",
        )
    if not coco_mask.area(rle):
        raise BadSegmentation("has an empty mask (no pixel inside)", "outline the object again or delete it")
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _polygon(polygon: object, width: int, height: int) -> list[float]:
    if not isinstance(polygon, list) or not all(is_number(value) for value in polygon):
        raise BadSegmentation(
            "has a polygon that is not a flat list of finite numbers",
            "export polygons as [[x1, y1, x2, y2, ...], ...]",
        )
    if len(polygon) % 2:
        raise BadSegmentation("has a polygon with an odd number of coordinates", "export x and y of every point")
    if len(polygon) < 6:
        raise BadSegmentation(
            f"has a polygon of {len(polygon) // 2} points; an area needs 3 or more", "outline the object again"
        )
    xs, ys = polygon[0::2], polygon[1::2]
    over = max(-min(xs), -min(ys), max(xs) - width, max(ys) - height)
    outside = max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height
    if outside or over > OVERSHOOT:
        how = "lies outside" if outside else f"sticks {over:.4g} pixels out of"
        raise BadSegmentation(
            f"has a polygon that {how} the {width} x {height} image",
            "check that the labels belong to this image at this size and orientation, then export them again",
        )
    return [float(value) for value in polygon]


def _runs(rle: dict[Any, Any], width: int, height: int) -> npt.NDArray[np.int64]:
    """Run lengths, column by column, background first; their sum is checked to be width * height."""
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise BadSegmentation(
            f"has an RLE of size {size!r:.60}, but the image is [{height}, {width}] (height, width)",
            "export the masks at the size of the image",
        )
    runs: list[int] | None = None
    if isinstance(counts, str):
        runs = _decompress(counts)
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    if runs is None or any(run < 0 for run in runs):
        raise BadSegmentation(
            "has RLE counts that are neither a list of run lengths nor a compressed string",
            "export the mask again, with pycocotools' encode for instance",
        )
    if sum(runs) != width * height:
        raise BadSegmentation(
            f"has RLE counts that do not add up to the {width * height} pixels of the image",
            "export the mask again at the size of the image",
        )
    return np.array(runs, dtype=np.int64)


def _decompress(counts: str) -> list[int] | None:
    """Run lengths of COCO's compressed string, None if it is broken.

    Each number is a difference to the run before last, 5 bits a character, least first.
    pycocotools' rleFrString reads the same format, but past the end of a broken string.
    """
    if not counts.isascii() or not counts:
        return None
    digits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    more = (digits & 0x20) != 0
    if digits.min() < 0 or digits.max() > 63 or more[-1]:
        return None
    ends = np.flatnonzero(~more)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:  # 35 bits and more: longer than any image
        return None
    values = np.add.reduceat((digits & 0x1F) << (5 * place), starts)
    values -= np.where(digits[ends] & 0x10, 1 << (5 * (place[ends] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    runs: list[int] = values.tolist()
    return runs


def _from_runs(runs: npt.NDArray[np.int64], width: int, height: int) -> Rle:
    """Compressed RLE of run lengths, runs of no pixels taken out and their neighbours joined."""
    filled = np.flatnonzero(runs)
    value = filled % 2
    first = np.flatnonzero(np.diff(value, prepend=-1))
    joined = np.add.reduceat(runs[filled], first).tolist()
    if value[0]:
        joined.insert(0, 0)
    rle: Rle = coco_mask.frPyObjects({"size": [height, width], "counts": joined}, height, width)
    return rle


def is_number(value: object) -> bool:
    """A finite number; JSON's true, NaN and Infinity are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of float
        return False
