"""Validation images that show what a classifier does well and badly: ground truth beside prediction."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samif.dataset.images import read_image
from samif.dataset.model import Dataset, ImageRecord
from samif.errors import DataError
from samif.evaluate.matching import KINDS, Kind, Matched
from samif.inference.overlay import draw_instances
from samif.masks.rle import Rle, decode

LONGER_SIDE = 480
JPEG_QUALITY = 80


def choose(matched: Sequence[Matched], focus: Iterable[str], count: int) -> dict[Kind, list[Matched]]:
    """The best images (hits) and the worst (misses, false positives), at most `count` of each, always the same ones.

    Images rank by how many instances of the `focus` classes they show; an image is shown twice only where there
    is no other.
    """
    wanted = set(focus)
    used: set[int] = set()
    chosen: dict[Kind, list[Matched]] = {}
    for kind in KINDS:
        ranked = sorted(
            (item for item in matched if item.names(kind)),
            key=lambda item: (item.image.id in used, *_rank(item, kind, wanted), item.image.id),
        )
        chosen[kind] = ranked[:count]
        used |= {item.image.id for item in chosen[kind]}
    return chosen


def _rank(item: Matched, kind: Kind, focus: set[str]) -> tuple[float, ...]:
    names = item.names(kind)
    special = sum(name in focus for name in names)
    scores = sum(detection.score for detection in item.detections)
    if kind == "hits":
        errors = len(item.names("misses")) + len(item.names("false_positives"))
        return (special == 0, errors - special, -scores)
    return -special, -len(names), -scores


def render(dataset: Dataset, item: Matched, kind: Kind, folder: Path, stem: str) -> dict[str, Any]:
    """Write `STEM-truth.jpg` and `STEM-prediction.jpg` into `folder`, longer side 480 px, and say what they show.

    Misses are emphasised in the truth, false positives in the prediction; the rest is then drawn as thin outlines.
    """
    small = shrink(dataset, item.image)
    size = (small.shape[1], small.shape[0])
    truth = draw_truth(small, item, item.missed if kind == "misses" else None)
    prediction = draw_detections(small, item, item.false_positives if kind == "false_positives" else None)
    files = {}
    for side, pixels in (("truth", truth), ("prediction", prediction)):
        path = folder / f"{stem}-{side}.jpg"
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY, optimize=True)
        files[side] = path.name
    return {
        "kind": kind,
        "image": item.image.file_name,
        "width": size[0],
        "height": size[1],
        "objects": len(item.truth),
        "names": dict(sorted(Counter(item.names(kind)).items())),
        **files,
    }


def shrink(dataset: Dataset, item: ImageRecord) -> np.ndarray:
    """The image with its longer side at 480 px, (H, W, 3) uint8.

    Raises:
        DataError: the image cannot be read, or has another size than its index says.
    """
    image = Image.fromarray(read_image(dataset.path_of(item)))
    if image.size != (item.width, item.height):
        raise DataError(
            f"image '{item.file_name}' is {image.size[0]} x {image.size[1]} px, but the validation index "
            f"says {item.width} x {item.height}; run the dataset stage again"
        )
    scale = LONGER_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def draw_truth(small: np.ndarray, item: Matched, emphasis: Sequence[bool] | None) -> np.ndarray:
    """The labels of an image over its shrunk pixels; see `draw_instances` for `emphasis`."""
    size = (small.shape[1], small.shape[0])
    masks = [_resize(annotation.rle, size) for annotation in item.truth]
    return draw_instances(small, masks, [annotation.category for annotation in item.truth], emphasis=emphasis)


def draw_detections(small: np.ndarray, item: Matched, emphasis: Sequence[bool] | None) -> np.ndarray:
    """What a classifier found in an image over its shrunk pixels, with scores."""
    size = (small.shape[1], small.shape[0])
    return draw_instances(
        small,
        [_resize(detection.rle, size) for detection in item.detections],
        [detection.category for detection in item.detections],
        [detection.score for detection in item.detections],
        emphasis=emphasis,
    )


def to_jpeg(pixels: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8 RGB as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def _resize(rle: Rle, size: tuple[int, int]) -> np.ndarray:
    """Mask of `rle` at another (width, height), as a bool (H, W) array."""
    area = Image.fromarray(decode([rle])[0].astype(np.uint8) * 255)
    return np.asarray(area.resize(size, Image.Resampling.BILINEAR)) > 127
