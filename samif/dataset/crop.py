"""A part of a labelled image as an image of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from samif.dataset.model import Annotation, ImageRecord
from samif.masks.rle import areas, boxes, encode, part

LEAST_SEEN = 0.5
"""Share of an object that a part has to show to be labelled there."""


def crop(image: ImageRecord, x: int, y: int, width: int, height: int) -> ImageRecord:
    """The labels of a box of an image, in the box's pixels. Objects of which it shows less than half become crowds:
    neither object nor background. The file name and SHA-256 stay those of the whole image."""
    kept: list[Annotation] = []
    codes = [a.rle for a in image.annotations]
    for annotation, (left, top, w, h), area in zip(image.annotations, boxes(codes), areas(codes), strict=True):
        if left >= x + width or top >= y + height or left + w <= x or top + h <= y:
            continue
        mask = part(annotation.rle, x, y, width, height)
        seen = int(mask.sum())
        if seen:
            rle = encode(np.asarray(mask)[None])[0]
            left, top, w, h = (float(v) for v in boxes([rle])[0])
            crowd = annotation.crowd or bool(seen < LEAST_SEEN * area)
            kept.append(replace(annotation, rle=rle, crowd=crowd, bbox=(left, top, w, h), area=float(seen)))
    return replace(image, width=width, height=height, annotations=tuple(kept))
