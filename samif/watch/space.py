"""Where images lie by several numbers at once.

Shape legend: D numbers of an image, K directions that are watched of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """Where ordinary images lie: `centre` (D,), and `directions` (D, K) in which they have unit variance."""

    centre: Array
    directions: Array

    def place(self, numbers: NDArray[np.floating]) -> Array:
        """The numbers of images (..., D) -> places (..., K)."""
        return np.asarray((numbers.astype(np.float64) - self.centre) @ self.directions)


@dataclass(frozen=True)
class Region:
    """Where the level of an undisturbed stream stays.

    Attributes:
        space: of the images.
        middle: (K,) the mean place of the reference images.
        reach: how far a level may be from it; infinity where it is not watched.
    """

    space: Space
    middle: Array
    reach: float


def distance(offset: Array, weight: float) -> Array:
    """How far levels are from the reference (..., K) -> (...), in standard errors of a level of undisturbed images:
    the Mahalanobis distance of the weighted mean, the square root of MEWMA's T squared."""
    return np.asarray(np.linalg.norm(offset, axis=-1) / math.sqrt(weight / (2.0 - weight)))
