"""A small COCO set on disk that tests bend out of shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 64, 48


def square(x: float, y: float, size: float) -> list[list[float]]:
    return [[x, y, x + size, y, x + size, y + size, x, y + size]]


class Line:
    """Two classes, two images of 64 x 48, one bolt and one nut in each; `raw` is the JSON still to be written."""

    def __init__(self, root: Path) -> None:
        self.images = root / "images"
        self.annotations = root / "labels.json"
        self.images.mkdir()
        self.raw: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "bolt"}, {"id": 7, "name": "nut"}],
        }
        for number, name in ((1, "a.png"), (2, "b.png")):
            self.image(number, name)
            self.label(10 * number, number, 3, square(4, 4, 10))
            self.label(10 * number + 1, number, 7, square(30, 20, 12))

    def image(self, number: int, name: str) -> None:
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(self.images / name)
        self.raw["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})

    def label(self, number: int, image: int, category: int, segmentation: object, **more: object) -> None:
        self.raw["annotations"].append(
            {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}
        )

    def write(self) -> tuple[Path, Path]:
        """The arguments of `read_coco`."""
        self.annotations.write_text(json.dumps(self.raw), encoding="utf-8")
        return self.images, self.annotations


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


@pytest.fixture
def outline() -> Callable[[float, float, float], list[list[float]]]:
    """COCO polygons of a square from its corner and side."""
    return square
