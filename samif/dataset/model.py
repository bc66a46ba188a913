"""A checked data set in memory and on disk. Masks are compressed COCO RLE in the upright frame of their image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from samif.errors import DataError, IntegrityError, ObjectMissing
from samif.io import files


@dataclass(frozen=True)
class Category:
    """A class: its id in the COCO file and its name."""

    id: int
    name: str


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class ImageRecord:
    """An image file, its upright size, the SHA-256 of its bytes ("" where unreadable) and its labels."""

    id: int
    file_name: str
    width: int
    height: int
    sha256: str
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class Dataset:
    """Images below `root` with their labels; the order is the one of the COCO file."""

    root: Path
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]

    @property
    def category_names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.categories)

    def category_ids(self, classes: Sequence[str]) -> dict[str, int]:
        """Class name -> category id: the file's own, and fresh ids for classes that it has never heard of."""
        ids = {category.name: category.id for category in self.categories}
        for name in classes:
            ids.setdefault(name, max(ids.values(), default=0) + 1)
        return ids

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content: ids of images and labels, image SHA-256s and sizes, masks with their classes.

        Neither the place and the names of the files nor any order in the COCO file count, nor do ids of classes and
        classes without a label.
        """
        content = [
            [
                *(image.id, image.sha256, image.width, image.height),
                sorted((a.id, a.category, a.rle["counts"], a.crowd) for a in image.annotations),
            ]
            for image in sorted(self.images, key=lambda image: image.id)
        ]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def _by_id(self) -> dict[int, ImageRecord]:
        return {image.id: image for image in self.images}

    def image(self, image_id: int) -> ImageRecord:
        """The image of that id.

        Raises:
            DataError: there is none.
        """
        try:
            return self._by_id[image_id]
        except KeyError:
            raise DataError(
                f"the data set in {self.root} has no image with id {image_id}; run the stage 'dataset' again"
            ) from None

    def path_of(self, image: ImageRecord) -> Path:
        return self.root / image.file_name

    def only(self, image_ids: Iterable[int]) -> Dataset:
        """The same data set with these images alone, in the old order and with all categories.

        Raises:
            DataError: an id is unknown.
        """
        wanted = {self.image(image_id).id for image_id in image_ids}
        return replace(self, images=tuple(p for p in self.images if p.id in wanted))

    def save(self, path: Path) -> None:
        """Write a COCO file with `sha256` per image and compressed RLE; it appears whole or not at all."""
        pairs = [(image, a) for image in self.images for a in image.annotations]
        id_of = {category.name: category.id for category in self.categories}
        content = {
            "images": [
                {"id": p.id, "file_name": p.file_name, "width": p.width, "height": p.height, "sha256": p.sha256}
                for p in self.images
            ],
            "annotations": [
                {
                    "id": a.id,
                    "image_id": image.id,
                    "category_id": id_of[a.category],
                    "segmentation": a.rle,
                    "bbox": list(a.bbox),
                    "area": a.area,
                    "iscrowd": int(a.crowd),
                }
                for image, a in pairs
            ],
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
        }
        files.commit(path, json.dumps(content, separators=(",", ":")).encode())

    @classmethod
    def load(cls, path: Path, root: Path) -> Self:
        """Read what `save` wrote. The file is trusted: no image is opened and no mask is checked.

        Raises:
            DataError: the file is missing or was not written by `save`.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = {category["id"]: category["name"] for category in content["categories"]}
            annotations: dict[int, list[Annotation]] = {image["id"]: [] for image in content["images"]}
            for a in content["annotations"]:
                x, y, width, height = a["bbox"]
                annotations[a["image_id"]].append(
                    Annotation(
                        id=a["id"],
                        category=names[a["category_id"]],
                        rle=a["segmentation"],
                        crowd=bool(a["iscrowd"]),
                        bbox=(x, y, width, height),
                        area=a["area"],
                    )
                )
            images = tuple(
                ImageRecord(i["id"], i["file_name"], i["width"], i["height"], i["sha256"], tuple(annotations[i["id"]]))
                for i in content["images"]
            )
        except FileNotFoundError:
            raise ObjectMissing(f"{path} does not exist; run the stage 'dataset' first") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{path} is not an index of checked images ({type(error).__name__}: {error}); "
                "run the stage 'dataset' again"
            ) from None
        return cls(root, tuple(Category(id_, name) for id_, name in names.items()), images)
