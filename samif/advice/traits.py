"""What a labelled object looks like in its image: size, direction, light, background, whether it is cut or touched.

Shape legend: H, W of the image in pixels, N labels that are no crowds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from samif.dataset.model import Annotation, ImageRecord
from samif.masks.rle import decode, part

WORKING_SIDE = 1024
"""Longer side at which objects are measured, in pixels: none of the traits needs more."""
RING = 0.25
"""Width of the surround, as a share of the root of the object's area."""
MIN_RING_PIXELS = 25
"""Surrounds of fewer pixels say nothing about the background."""
NEIGHBOUR_REACH = 3
"""Pixels (at WORKING_SIDE) across which two labels count as touching."""
TOUCHING_SHARE = 0.1
"""Share of the outline along which another label lies before the object counts as touched."""
MIN_ELONGATION = 1.3
"""Length over width of a mask from which its principal axis is a direction: rounder ones turn with
small changes of the outline."""


@dataclass(frozen=True)
class Traits:
    """One labelled object.

    Attributes:
        image, annotation: COCO ids.
        category: class name.
        size: root of the mask's area over the root of the image's area, 0..1.
        angle: direction of the principal axis, degrees in 0..180; None where the mask is about as long as wide.
        brightness: mean of the object's luma, 0..255.
        surround: mean RGB (3,) of the ring around the object, 0..255; None where other objects or borders fill it.
        cut: the mask reaches the border of the image.
        touching: another label lies along the outline or over the object.
    """

    image: int
    annotation: int
    category: str
    size: float
    angle: float | None
    brightness: float
    surround: tuple[float, float, float] | None
    cut: bool
    touching: bool


def measure_traits(image: ImageRecord, pixels: NDArray[np.uint8]) -> list[Traits]:
    """Traits of the labels of an image (H, W, 3) uint8 RGB that are no crowds, in their order.

    Raises:
        ValueError: the pixels are of another size than the record.
    """
    if pixels.shape[:2] != (image.height, image.width):
        raise ValueError(f"expected an image of {image.height} x {image.width} pixels, got {pixels.shape[:2]}")
    labels = [a for a in image.annotations if not a.crowd]
    step = max(1, math.ceil(max(pixels.shape[:2]) / WORKING_SIDE))
    small = pixels[::step, ::step]
    covered = np.zeros(small.shape[:2], dtype=np.uint16)
    for annotation in image.annotations:
        covered += decode([annotation.rle])[0][::step, ::step]
    return [_traits(image, annotation, small, covered, step) for annotation in labels]


def _traits(
    image: ImageRecord, label: Annotation, small: NDArray[np.uint8], covered: NDArray[np.uint16], step: int
) -> Traits:
    height, width = small.shape[:2]
    reach = max(NEIGHBOUR_REACH, round(RING * math.sqrt(label.area) / step))
    x, y, w, h = (round(v) for v in label.bbox)
    left, top = max(0, x // step - reach - 1), max(0, y // step - reach - 1)
    right, bottom = min(width, (x + w) // step + reach + 2), min(height, (y + h) // step + reach + 2)
    window = (slice(top, bottom), slice(left, right))
    mask = part(label.rle, left * step, top * step, (right - left) * step, (bottom - top) * step)[::step, ::step]
    others = covered[window] > mask
    distance = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    ring = (distance > 1) & (distance <= reach) & ~others
    colours = small[window]
    on_object = colours[mask] if mask.any() else colours.reshape(-1, 3)
    surround = colours[ring].mean(axis=0) if ring.sum() >= MIN_RING_PIXELS else None
    edge = mask & ~ndimage.binary_erosion(mask)
    near = (ndimage.distance_transform_edt(~others) <= NEIGHBOUR_REACH) if others.any() else np.zeros_like(mask)
    return Traits(
        image=image.id,
        annotation=label.id,
        category=label.category,
        size=math.sqrt(label.area / (image.height * image.width)),
        angle=principal_angle(mask),
        brightness=float(luma(on_object).mean()),
        surround=None if surround is None else (float(surround[0]), float(surround[1]), float(surround[2])),
        cut=x <= 1 or y <= 1 or x + w >= image.width - 1 or y + h >= image.height - 1,
        touching=bool((near & edge).sum() > TOUCHING_SHARE * max(1, edge.sum())),
    )


def principal_angle(mask: NDArray[np.bool_]) -> float | None:
    """Direction of a mask's longer axis, degrees in 0..180 from the x axis towards the y axis (downwards); None where
    it is less than MIN_ELONGATION times as long as wide."""
    y, x = np.nonzero(mask)
    if len(x) < 3:
        return None
    values, vectors = np.linalg.eigh(np.cov(np.stack([x, y]).astype(np.float64)) + np.eye(2) / 12)
    if values[1] < MIN_ELONGATION**2 * values[0]:
        return None
    return float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180.0)


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Rec. 601 luma (...,) of RGB (..., 3), 0..255."""
    return np.asarray(rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))


def largest_window(angles: Sequence[float], half_width: float) -> tuple[int, float]:
    """The most of these directions (degrees, modulo 180) that lie within `half_width` of one of them, and the mean
    direction of those."""
    values = np.asarray(angles, dtype=np.float64)
    apart = np.abs(values[:, None] - values[None, :])
    near = np.minimum(apart, 180.0 - apart) <= half_width
    best = int(near.sum(axis=1).argmax())
    doubled = np.exp(2j * np.radians(values[near[best]])).mean()
    return int(near[best].sum()), float(np.degrees(np.angle(doubled)) / 2 % 180.0)
