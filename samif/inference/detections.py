"""What a model found in one image, as users of the Python API get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samif.inference.coco_ids import Id
from samif.inference.segment import Instances
from samif.masks.rle import Rle, decode


@dataclass(frozen=True)
class Detections:
    """N instances in one image of `height` x `width` pixels, best score first. The frame is that of the upright image:
    x to the right, y down, origin at the top left corner.

    Attributes:
        rles: N masks as COCO run-length codes.
        boxes: (N, 4) float64 as x_min, y_min, x_max, y_max in pixels.
        scores: (N,) float64 in 0..1.
        class_names: N names; `unknown` for an object of no known class.
        categories: all class names of the model, `unknown` last; `to_coco` numbers them from 1.
    """

    height: int
    width: int
    rles: list[Rle]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    class_names: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, instances: Instances, categories: tuple[str, ...]) -> Detections:
        """The same instances; only the form of the boxes differs."""
        boxes = instances.boxes.copy()
        boxes[:, 2:] += boxes[:, :2]
        return cls(
            instances.height, instances.width, instances.masks, boxes, instances.scores, instances.labels, categories
        )

    def __len__(self) -> int:
        return len(self.rles)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """Masks (N, H, W) bool, decoded at the first access: N x H x W bytes."""
        return decode(self.rles) if self.rles else np.zeros((0, self.height, self.width), dtype=bool)

    def to_coco(self, image_id: Id = 1, category_ids: Mapping[str, Id] | None = None) -> list[dict[str, Any]]:
        """COCO results: `image_id`, `category_id`, `segmentation` (RLE), `bbox` (x, y, width, height), `score`.

        Args:
            image_id: id of the image, as a COCO file has it.
            category_ids: id of each class name; by default 1, 2, ... in the order of `categories`.
        """
        ids = category_ids or {name: number for number, name in enumerate(self.categories, start=1)}
        return [
            {
                "image_id": image_id,
                "category_id": ids[name],
                "segmentation": rle,
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "score": round(float(score), 6),
            }
            for rle, name, score, (x0, y0, x1, y1) in zip(
                self.rles, self.class_names, self.scores, self.boxes, strict=True
            )
        ]
