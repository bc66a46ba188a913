"""A directory laid out like COCO2014, with its categories and ids, and drawn images by the dozen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samif.dataset.coco2014 import CATEGORIES, Counts

WIDTH, HEIGHT = 64, 48
TRAIN = (9, 25, 30, 110, 308, 510, 581921, 574769)
VAL = (42, 73, 139, 285, 632, 724)
TEST = (139, 285, 632)
"""Of VAL: what minival is of val2014."""

SHOWN = (1, 8, 15, 67, 72, 90)
"""Person, truck, bench, dining table, tv, toothbrush: three each of novel and base classes, one of each per image."""


def counts(classes: int) -> Counts:
    """What a copy holds in which every image shows one object of so many classes."""
    return Counts(
        images={"train2014": 8, "val2014": 6},
        labels={"train2014": 8 * classes, "val2014": 6 * classes},
        train_images=11,
        train_labels=11 * classes,
        test_images=3,
        test_labels=3 * classes,
    )


COUNTS = counts(len(SHOWN))


def square(x: float, y: float, size: float) -> list[list[float]]:
    return [[x, y, x + size, y, x + size, y + size, x, y + size]]


def _corner(place: int) -> tuple[int, int]:
    """Squares stand in rows of ten, so that there is room for all 80 classes."""
    return 2 + 6 * (place % 10), 2 + 5 * (place // 10)


class Copy:
    """ROOT with images and both annotation files; minival is named by instances_minival2014.json."""

    def __init__(self, root: Path, shown: tuple[int, ...] = SHOWN) -> None:
        self.root = root
        self.shown = shown
        self.annotations = root / "annotations"
        self.annotations.mkdir(parents=True)
        for split, ids in (("train2014", TRAIN), ("val2014", VAL)):
            (root / split).mkdir()
            self._write(split, [self._image(split, id_) for id_ in ids])
        self.name_test("instances_minival2014.json", TEST)

    def image(self, split: str, id_: int) -> Path:
        return self.root / split / f"COCO_{split}_{id_:012d}.jpg"

    def name_test(self, file: str, ids: tuple[int, ...]) -> None:
        """Name the test images as COCO's own files do."""
        content = {"images": [{"id": id_} for id_ in ids], "annotations": [], "categories": []}
        (self.annotations / file).write_text(json.dumps(content))

    def edit(self, split: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the content of one annotation file."""
        path = self.annotations / f"instances_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def _image(self, split: str, id_: int) -> dict[str, Any]:
        path = self.image(split, id_)
        noise = np.random.default_rng(id_).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return {"id": id_, "file_name": path.name, "width": WIDTH, "height": HEIGHT, "license": 3, "coco_url": "none"}

    def _write(self, split: str, images: list[dict[str, Any]]) -> None:
        labels = [
            {
                "id": 100 * image["id"] + place,
                "image_id": image["id"],
                "category_id": category,
                "segmentation": square(*_corner(place), 5),
                "bbox": [*_corner(place), 5, 5],
                "area": 25,
                "iscrowd": 0,
            }
            for image in images
            for place, category in enumerate(self.shown)
        ]
        categories = [{"id": id_, "name": name, "supercategory": "thing"} for id_, name in CATEGORIES.items()]
        content = {"info": {}, "images": images, "annotations": labels, "categories": categories}
        (self.annotations / f"instances_{split}.json").write_text(json.dumps(content))
