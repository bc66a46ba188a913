"""Images, labels and classes of a checked data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Category:
    """A class: its id in the COCO file and its name."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """One labelled instance, or a crowd region that scoring ignores.

    Attributes:
        rle: {"size": [h, w], "counts": str}.
        bbox: x, y, width, height of the mask, in pixels.
        area: pixels of the mask.
    """

    id: int
    category: str
    rle: dict[str, Any]
    crowd: bool
    bbox: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image file, its upright size, the SHA-256 of its bytes ("" where unreadable) and its labels."""

    id: int
    file_name: str
    width: int
    height: int
    sha256: str
    annotations: tuple[Annotation, ...]
