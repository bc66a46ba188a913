"""How large labelled objects are in the eyes of an encoder."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from samif.dataset.model import Dataset

SMALL = 32.0
"""Encoder pixels, root of the area: below, masks are a few cells wide and often missed."""


def small_classes(dataset: Dataset, image_size: int) -> list[str]:
    """The classes of which half of the objects or more are small to an encoder that resizes the longer image side to
    `image_size` pixels; in the order of the categories."""
    sizes = defaultdict(list)
    for image in dataset.images:
        scale = image_size / max(image.height, image.width)
        for annotation in image.annotations:
            if not annotation.crowd:
                sizes[annotation.category].append(scale * np.sqrt(annotation.area))
    return [name for name in dataset.category_names if name in sizes and float(np.median(sizes[name])) < SMALL]
