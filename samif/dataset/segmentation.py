"""One COCO `segmentation` value, as tools write it, turned into the one form that is stored: compressed RLE.

Everything is checked before pycocotools sees it: its C code trusts run lengths and coordinates.
Frame: upright image pixels, x to the right, y down, (0, 0) the outer corner of the first pixel.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from samif.dataset.values import number_of, whole

OVERSHOOT = 5.0
"""Pixels by which an outline may exceed the image without a word: labelling tools round."""

MIN_INSIDE = 0.5
"""Share of an outline's area that must lie inside the image; with less of it the label is of another image or size."""

_FARTHEST = 1e7
"""Pixels beyond which a coordinate is a mistake and not a point of an outline."""

_DEPTH = 4
"""Lists within lists that are looked into: polygons, rings, points and their coordinates."""

Rle = dict[str, Any]


class BadSegmentation(Exception):
    """A segmentation that is no mask of the image: what is wrong, and the remedy.

    Attributes:
        kind: what is wrong without the values of this one record, so that records can be counted.
        cut: whether the rest of the outline could be kept, because it is only cut to the image.
    """

    def __init__(self, what: str, remedy: str, kind: str = "", *, cut: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.kind = kind or what
        self.cut = cut


@dataclass(frozen=True)
class Mask:
    """A mask in canonical form, and what of the outline was left out or cut to get it, each with its remedy."""

    rle: Rle
    changes: tuple[BadSegmentation, ...] = ()


def to_rle(segmentation: object, width: int, height: int) -> Rle:
    """`read_mask` without what was changed."""
    return read_mask(segmentation, width, height).rle


def read_mask(segmentation: object, width: int, height: int) -> Mask:
    """Mask of polygons or run lengths.

    Polygons are taken as [[x1, y1, x2, y2, ...], ...], as one flat list, as [[x, y], ...] and as lists of those; run
    lengths as a list or COCO's compressed string, in a list of their own, too. Numbers may be in quotes. Parts of fewer
    than three points or without a valid coordinate are left out, parts outside the image cut off.

    Returns:
        The mask, {"size": [height, width], "counts": str}, canonical: equal masks give equal strings. And its changes.

    Raises:
        BadSegmentation: nothing is left: no outline, no valid part, outside the image, another size, no pixel.
    """
    rles: list[Rle] = []
    changes: list[BadSegmentation] = []
    polygons: list[list[float]] = []
    for part in _parts(_parsed(segmentation)):
        try:
            if isinstance(part, dict):
                rles.append(_from_runs(_runs(part, width, height), width, height))
            else:
                polygon, cut = _polygon(part, width, height)
                polygons.append(polygon)
                changes += cut
        except BadSegmentation as problem:
            changes.append(problem)
    if polygons:
        rles += coco_mask.frPyObjects(polygons, height, width)
    if not rles:
        raise (
            changes[0]
            if changes
            else BadSegmentation(
                "has no outline ('segmentation' is missing or empty)",
                "outline the object in the labelling tool and export instance masks, or delete the annotation",
            )
        )
    rle = coco_mask.merge(rles)
    area = coco_mask.area(rle)
    if polygons and area <= 1 and max(map(max, polygons)) <= 1.0:
        raise BadSegmentation(
            "has coordinates between 0 and 1, as shares of the image", "export the outlines in pixels"
        )
    if not area:
        raise BadSegmentation("has an empty mask (no pixel inside)", "outline the object again or delete it")
    return Mask({"size": [height, width], "counts": rle["counts"].decode("ascii")}, tuple(changes))


def reach(segmentation: object) -> tuple[float, float]:
    """Largest x and y of polygons, width and height of run lengths, in pixels; 0 where there is none."""
    x = y = 0.0
    for part in _parts(_parsed(segmentation)):
        if isinstance(part, dict):
            size = part.get("size")
            right, low = (size[1:], size[:1]) if isinstance(size, list) and len(size) == 2 else ([], [])
        else:
            right, low = part[0::2], part[1::2]
        x = max(x, _largest(right))
        y = max(y, _largest(low))
    return x, y


def _largest(values: list[Any]) -> float:
    return max((number for value in values if (number := number_of(value)) is not None), default=0.0)


def _parsed(segmentation: object) -> object:
    """A value that a table turned into text, as the value that it was."""
    if isinstance(segmentation, str) and segmentation.strip()[:1] in ("[", "{"):
        try:
            return json.loads(segmentation)
        except (ValueError, RecursionError):
            return None
    return segmentation


def _parts(value: object, depth: int = _DEPTH) -> Iterator[list[Any] | dict[Any, Any]]:
    """Polygons as flat lists of coordinates, run lengths as objects."""
    if isinstance(value, dict):
        if value:
            yield value
    elif isinstance(value, list) and value and depth:
        if not any(isinstance(entry, list | dict) for entry in value):
            yield value
        elif all(_point(entry) is not None for entry in value):
            yield [coordinate for entry in value for coordinate in _point(entry) or ()]
        else:
            for entry in value:
                if isinstance(entry, list | dict):
                    yield from _parts(entry, depth - 1)
                else:
                    yield [entry]


def _point(value: object) -> list[Any] | None:
    """Coordinates of one point, [x, y] or {"x": x, "y": y}; None for everything else."""
    if isinstance(value, dict) and value.keys() == {"x", "y"}:
        return [value["x"], value["y"]]
    if isinstance(value, list) and len(value) == 2 and not any(isinstance(entry, list | dict) for entry in value):
        return value
    return None


def _polygon(part: list[Any], width: int, height: int) -> tuple[list[float], list[BadSegmentation]]:
    """A polygon inside the image, OVERSHOOT apart, and what was cut off it."""
    values = [number for value in part if (number := number_of(value)) is not None]
    if len(values) < len(part) or any(abs(value) > _FARTHEST for value in values):
        raise BadSegmentation(
            "has a polygon with coordinates that are not finite numbers",
            "export polygons as [[x1, y1, x2, y2, ...], ...]",
        )
    if len(values) % 2:
        raise BadSegmentation("has a polygon with an odd number of coordinates", "export x and y of every point")
    if len(values) < 6:
        raise BadSegmentation(
            f"has a polygon of {_points(len(values) // 2)}; an area needs 3 or more",
            "outline the object again",
            "has a polygon of fewer than 3 points",
        )
    xs, ys = values[0::2], values[1::2]
    over = max(-min(xs), -min(ys), max(xs) - width, max(ys) - height)
    outside = max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height
    if not outside and over <= OVERSHOOT:
        return values, []
    points = np.array(values, dtype=np.float64).reshape(-1, 2)
    inside = points if outside else _clipped(points, width, height)
    cut = not outside and len(inside) >= 3 and _area(inside) >= MIN_INSIDE * _area(points)
    how = "lies outside" if outside else f"sticks {over:.4g} pixels out of"
    problem = BadSegmentation(
        f"has a polygon that {how} the {width} x {height} image",
        "check that the labels belong to this image at this size and orientation, then export them again",
        f"has a polygon that {'sticks out of' if cut else 'lies outside'} the image",
        cut=cut,
    )
    if not cut:
        raise problem
    return inside.ravel().tolist(), [problem]


def _points(number: int) -> str:
    return "1 point" if number == 1 else f"{number} points"


def _clipped(points: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.float64]:
    """What of a polygon (N, 2) lies inside the image, side by side of the image (Sutherland and Hodgman, 1974)."""
    for axis, sign, limit in ((0, 1.0, 0.0), (0, -1.0, -float(width)), (1, 1.0, 0.0), (1, -1.0, -float(height))):
        if len(points) == 0:
            break
        depth = sign * points[:, axis] - limit  # how far inside of this side
        following, depth_after = np.roll(points, -1, axis=0), np.roll(depth, -1)
        kept: list[npt.NDArray[np.float64]] = []
        for here, there, d0, d1 in zip(points, following, depth, depth_after, strict=True):
            if d0 >= 0:
                kept.append(here)
            if (d0 >= 0) != (d1 >= 0):
                kept.append(here + (there - here) * (d0 / (d0 - d1)))
        points = np.array(kept).reshape(-1, 2)
    return points


def _area(points: npt.NDArray[np.float64]) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _runs(rle: dict[Any, Any], width: int, height: int) -> npt.NDArray[np.int64]:
    """Run lengths, column by column, background first; their sum is checked to be width * height."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
        raise BadSegmentation(
            f"has an RLE of size {size!r:.60}, but the image is [{height}, {width}] (height, width)",
            "export the masks at the size of the image",
            "has an RLE of another size than the image",
        )
    runs: list[int] | None = None
    if isinstance(counts, str):
        runs = _decompress(_unquoted(counts))
    elif isinstance(counts, list):
        numbers = [whole(run) for run in counts]
        runs = [run for run in numbers if run is not None] if None not in numbers else None
    if runs is None or any(run < 0 for run in runs):
        raise BadSegmentation(
            "has RLE counts that are neither a list of run lengths nor a compressed string",
            "export the mask again, with pycocotools' encode for instance",
        )
    if sum(runs) != width * height:
        raise BadSegmentation(
            f"has RLE counts that do not add up to the {width * height} pixels of the image",
            "export the mask again at the size of the image",
            "has RLE counts that do not add up to the pixels of the image",
        )
    return np.array(runs, dtype=np.int64)


def _unquoted(counts: str) -> str:
    """The compressed string inside of "b'...'", which is what str() makes of bytes in Python."""
    if counts[:2] not in ("b'", 'b"') or counts[-1:] != counts[1]:
        return counts
    try:
        return bytes(ast.literal_eval(counts)).decode("ascii")
    except (ValueError, SyntaxError, UnicodeDecodeError):
        return counts


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
