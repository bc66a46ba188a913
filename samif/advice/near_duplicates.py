"""Images that show nearly the same: by a small thumbnail of each.

Shape legend: N images, T cells along a thumbnail's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

T = 16


def thumbnail(pixels: NDArray[np.uint8]) -> Array:
    """An image (H, W, 3) uint8 RGB -> (T, T, 3), each cell the mean of what it covers, 0..255."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((T, T), Image.Resampling.BOX), dtype=np.float32)
