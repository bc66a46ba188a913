"""Outlines from other shapes and from painted masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from samif.dataset.segmentation import Rle
from samif.dataset.values import number_of
from samif.errors import DataError
from samif.masks import rle

CIRCLE_POINTS = 72
"""Points of a circle's or an ellipse's polygon, whose area is 99.9 % of it."""


def numbers(values: object) -> list[float] | None:
    """A list of finite numbers, None where one is anything else."""
    if not isinstance(values, list | tuple):
        return None
    found = [number for value in values if (number := number_of(value)) is not None]
    return found if len(found) == len(values) else None


def points(pairs: object, scale_x: float = 1.0, scale_y: float = 1.0) -> list[float] | None:
    """[[x, y], ...] as [x, y, ...], scaled; None where a point is not two numbers."""
    if not isinstance(pairs, list):
        return None
    flat: list[float] = []
    for pair in pairs:
        xy = numbers(pair)
        if xy is None or len(xy) != 2:
            return None
        flat += [xy[0] * scale_x, xy[1] * scale_y]
    return flat


def rectangle(
    x: float, y: float, width: float, height: float, degrees: float = 0.0, about: tuple[float, float] | None = None
) -> list[float]:
    """Corners of a box whose top left corner is (x, y), turned clockwise about a point, its centre by default."""
    cx, cy = about or (x + width / 2, y + height / 2)
    return turned([x, y, x + width, y, x + width, y + height, x, y + height], cx, cy, degrees)


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> list[float]:
    """Polygon of an ellipse, turned clockwise about its centre."""
    steps = [2 * math.pi * step / CIRCLE_POINTS for step in range(CIRCLE_POINTS)]
    flat = [value for t in steps for value in (cx + rx * math.cos(t), cy + ry * math.sin(t))]
    return turned(flat, cx, cy, degrees)


def turned(polygon: Sequence[float], cx: float, cy: float, degrees: float) -> list[float]:
    """A polygon turned clockwise (y is down) about a point."""
    if not degrees:
        return list(polygon)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pairs = zip(polygon[0::2], polygon[1::2], strict=True)
    return [
        value
        for x, y in pairs
        for value in (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
    ]


def encode(mask: npt.NDArray[np.bool_]) -> Rle:
    """RLE of a mask (H, W)."""
    return rle.encode(mask[None])[0]


def pasted(part: npt.NDArray[np.bool_], x: int, y: int, width: int, height: int) -> Rle | None:
    """RLE over a `width` x `height` image of a mask (h, w) whose top left pixel is (x, y); None where it lies outside.

    What sticks out of the image is cut off.
    """
    whole = np.zeros((height, width), dtype=bool)
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + part.shape[0], height), min(x + part.shape[1], width)
    if bottom <= top or right <= left:
        return None
    whole[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]
    return encode(whole)


def row_runs(counts: Sequence[int], width: int, height: int) -> npt.NDArray[np.bool_] | None:
    """Mask (height, width) of run lengths row by row, background first; None where they do not add up."""
    runs = np.array(counts, dtype=np.int64)
    if width < 1 or height < 1 or not len(runs) or runs.min() < 0 or runs.sum() != width * height:
        return None
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)


@dataclass(frozen=True)
class LabelMap:
    """A mask file.

    Attributes:
        values: (H, W) palette index, grey value, or 65536 r + 256 g + b; 0 is background.
        coloured: whether the values are colours.
        palette: (N, 3) colours of the values, where the file has a palette.
        lossy: whether the format changes values (JPEG).
    """

    values: npt.NDArray[np.int64]
    coloured: bool
    palette: npt.NDArray[np.int64] | None
    lossy: bool

    @property
    def colours(self) -> npt.NDArray[np.int64]:
        """(H, W) colours as 65536 r + 256 g + b."""
        if self.coloured:
            return self.values
        if self.palette is None:
            return self.values * 0x010101
        codes = self.palette @ np.array([65536, 256, 1])
        return np.asarray(codes[np.minimum(self.values, len(codes) - 1)])

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[1], self.values.shape[0]


def read_label_map(path: Path) -> LabelMap:
    """A mask file as it is stored: its values are not scaled and no colour profile or EXIF tag is applied.

    Raises:
        DataError: the file is no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            lossy = image.format == "JPEG"
            if image.mode == "P":
                palette = np.array(image.getpalette("RGB") or [0, 0, 0], dtype=np.int64).reshape(-1, 3)
                return LabelMap(np.asarray(image).astype(np.int64), False, palette, lossy)
            if image.mode in ("1", "L", "I") or image.mode.startswith("I;16"):
                return LabelMap(np.asarray(image).astype(np.int64), False, None, lossy)
            pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
    except Exception as error:  # decoders of damaged files raise a dozen kinds
        raise DataError(f"{path} is not an image ({error}); export the mask again as PNG") from None
    pixels[pixels[..., 3] == 0] = 0
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        return LabelMap(pixels[..., 0], False, None, lossy)
    return LabelMap(pixels[..., :3] @ np.array([65536, 256, 1]), True, None, lossy)


def connected(mask: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.bool_]]:
    """The connected parts (8 neighbours) of a mask, each as a mask (H, W)."""
    parts, number = ndimage.label(mask, structure=np.ones((3, 3)))
    for part in range(1, number + 1):
        yield parts == part
