"""Draw instances over an image, for people: translucent fill, crisp outline, name plate.

Sizes grow with the square root of the shorter side: 256 px images are seen whole and enlarged, 4,000 px ones shrunk.
Every line and plate carries its own dark or light counterpart, so that it shows on any background.
"""

from __future__ import annotations

import colorsys
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from samif.errors import DataError
from samif.masks.rle import Rle, decode

Colour = tuple[int, int, int]
Mask = np.ndarray | Rle
Box = tuple[int, int, int, int]

FILL = 0.36
HALO = 0.55


def class_colour(name: str) -> Colour:
    """RGB colour of a class name: the same in every image, run and machine; never grey, dark or pale."""
    seed = hashlib.sha256(name.encode()).digest()
    hue = int.from_bytes(seed[:2], "big") / 65536
    saturation, value = ((0.80, 1.00), (0.95, 0.86), (0.62, 0.97))[seed[2] % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_instances(
    image: np.ndarray,
    masks: Sequence[Mask],
    labels: Sequence[str],
    scores: Sequence[float] | None = None,
    *,
    emphasis: Sequence[bool] | None = None,
) -> np.ndarray:
    """Draw labelled instances over a copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: per instance a bool (H, W) array in the frame of the image, or COCO compressed RLE of that size.
        labels: class name per instance; it gives the colour.
        scores: score per instance in 0-1, shown after the name; None shows none.
        emphasis: False draws an instance as a thin outline without fill and plate; None emphasises all.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        DataError: the image, a mask or a list has the wrong shape, type or length.
    """
    _check(image, masks, labels, scores, emphasis)
    height, width = image.shape[:2]
    line = max(1.2, 0.09 * min(height, width) ** 0.5)
    canvas = image.astype(np.float32)
    shown = [True] * len(masks) if emphasis is None else list(emphasis)
    areas = [_decode(mask, (height, width)) for mask in masks]
    # Large first: a small part on a large one stays visible.
    order = sorted(range(len(masks)), key=lambda index: (shown[index], -int(areas[index].sum()), index))
    boxes: dict[int, Box] = {}
    for index in order:
        box = _box(areas[index])
        if box is None:
            continue
        boxes[index] = box
        _blend(canvas, areas[index], box, class_colour(labels[index]), line, shown[index])
    drawn = Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))
    plates = _Plates(drawn, line)
    for index in order:
        if shown[index] and index in boxes:
            text = labels[index] if scores is None else f"{labels[index]} {scores[index]:.2f}"
            plates.put(text, boxes[index], class_colour(labels[index]))
    return np.asarray(drawn).copy()


def _check(
    image: np.ndarray,
    masks: Sequence[Mask],
    labels: Sequence[str],
    scores: Sequence[float] | None,
    emphasis: Sequence[bool] | None,
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}; convert it to RGB")
    for name, values in (("labels", labels), ("scores", scores), ("emphasis", emphasis)):
        if values is not None and len(values) != len(masks):
            raise DataError(f"{name}: expected {len(masks)}, one per mask, got {len(values)}; give each mask one")


def _decode(mask: Mask, size: tuple[int, int]) -> np.ndarray:
    if isinstance(mask, np.ndarray):
        area = mask
        if area.dtype != np.bool_:
            raise DataError(f"mask: expected bool, got {area.dtype}; compare it with a threshold first")
    else:
        area = decode([mask])[0]
    if area.shape != size:
        raise DataError(f"mask: expected {size}, the size of the image, got {area.shape}; resize one of them")
    return area


def _box(area: np.ndarray) -> Box | None:
    """Half-open (left, top, right, bottom) of the true pixels; None where there are none."""
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _blend(canvas: np.ndarray, area: np.ndarray, box: Box, colour: Colour, line: float, full: bool) -> None:
    """Fill and outline one mask in place, inside its box grown by the halo."""
    sigma = 1.5 * line
    pad = int(4 * sigma) + 2
    left, top, right, bottom = box
    x0, y0 = max(0, left - pad), max(0, top - pad)
    x1, y1 = min(area.shape[1], right + pad), min(area.shape[0], bottom + pad)
    # Zero margin: an object cut by the image's edge gets its outline there too.
    margin = np.pad(area[y0:y1, x0:x1], pad)
    inside = (slice(pad, -pad), slice(pad, -pad))
    soft = Image.fromarray(margin.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(sigma))
    # A step blurred by a Gaussian is its distribution function, whose inverse (logistic form) is the distance in px.
    step = np.clip(np.asarray(soft, np.float32)[inside] / 255, 0.004, 0.996)
    distance = np.abs(sigma / 1.702 * np.log(step / (1 - step)))
    half = 0.5 * line if full else 0.3 * line
    region = canvas[y0:y1, x0:x1]
    ink = np.array(colour, np.float32)
    shadow = np.array((255, 255, 255) if _luminance(colour) < 90 else (12, 14, 18), np.float32)
    if full:
        _mix(region, ink, FILL * margin[inside])
    _mix(region, shadow, HALO * np.clip(half + 0.5 * line + 0.5 - distance, 0, 1))
    _mix(region, ink, np.clip(half + 0.5 - distance, 0, 1))


def _mix(region: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    region += (colour - region) * alpha[..., None].astype(np.float32)


def _luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0-255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


@dataclass
class _Plates:
    """Name plates of one image: inside its edges, and clear of each other where there is room."""

    image: Image.Image
    line: float

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)
        self.taken: list[Box] = []
        self.size = max(11.0, 0.85 * min(self.image.size) ** 0.5)

    def put(self, text: str, box: Box, colour: Colour) -> None:
        """Write `text` on a plate of `colour` near `box`, moved or shortened to stay inside the image."""
        font, text, pad = self._fit(_plain(text))
        ascent, descent = font.getmetrics()
        width = int(font.getlength(text) + 0.999) + 2 * pad
        height = ascent + descent + pad
        left, top = self._place(box, width, height)
        plate = (left, top, left + width, top + height)
        self.taken.append(plate)
        ink = (12, 14, 18) if _luminance(colour) > 120 else (255, 255, 255)
        self.draw.rounded_rectangle(
            (left, top, left + width - 1, top + height - 1),
            radius=pad,
            fill=colour,
            outline=ink,
            width=max(1, pad // 4),
        )
        self.draw.text((left + pad, top + pad // 2), text, fill=ink, font=font)

    def _fit(self, text: str) -> tuple[ImageFont.FreeTypeFont, str, int]:
        """Font, text and padding that fit the width of the image: smaller first, then cut."""
        limit = self.image.width
        for size in (self.size, max(8.0, 0.7 * self.size)):
            font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))
            pad = max(2, round(size / 5))
            if font.getlength(text) + 2 * pad + 1 <= limit:
                return font, text, pad
        while text and font.getlength(text + "…") + 2 * pad + 1 > limit:
            text = text[:-1]
        return font, text + "…", pad

    def _place(self, box: Box, width: int, height: int) -> tuple[int, int]:
        left, top, right, bottom = box
        gap = round(self.line)
        middle = (left + right - width) // 2
        candidates = [
            (left, top - height - gap),
            (left, bottom + gap),
            (right - width, top - height - gap),
            (right - width, bottom + gap),
            (middle, (top + bottom - height) // 2),
            (left, top + gap),
            (right + gap, top),
            (left - width - gap, top),
        ]
        # In a crowd: further off, a plate's height at a time.
        for away in (1, 2, 3):
            candidates += [(left, top - height - gap - away * height), (left, bottom + gap + away * height)]
        best, cost = (0, 0), float("inf")
        for rank, (x, y) in enumerate(candidates):
            x0 = min(max(0, x), max(0, self.image.width - width))
            y0 = min(max(0, y), max(0, self.image.height - height))
            hidden = sum(_overlap((x0, y0, x0 + width, y0 + height), other) for other in self.taken)
            moved = abs(x0 - x) + abs(y0 - y)
            # Hiding another plate is worst; then being pushed off the wanted place; then the order of candidates.
            value = 1000.0 * hidden + 2.0 * moved + rank
            if value < cost:
                best, cost = (x0, y0), value
        return best


def _overlap(one: Box, other: Box) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _plain(text: str) -> str:
    """`text` in the letters that Pillow's own font has: accents off, "?" for other scripts."""
    folded = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("ø", "o").replace("Ø", "O"))
    letters = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)
