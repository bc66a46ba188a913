"""Segment images with a model from a folder or the registry: COCO results and overlays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flows.inference.source import LOADERS
from samif.config import Params
from samif.dataset.images import inspect_image, read_image
from samif.errors import DataError
from samif.inference.load import FoundModel, ModelFiles
from samif.inference.load import load_segmenter as load
from samif.io import files

if TYPE_CHECKING:
    from samif.inference.detections import Detections
    from samif.inference.model import Model
    from samif.inference.segment import Segmenter

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Prediction:
    """The detections in one image file."""

    file: Path
    detections: Detections


def load_segmenter(
    files: ModelFiles,
    params: Params | None,
    checkpoint: str | None = None,
    semantic_checkpoint: str | None = None,
    device: str = "cpu",
) -> Segmenter:
    """`samif.inference.load.load_segmenter` for a model of a workspace; checkpoints may also lie at an address."""
    found = FoundModel(str(files.folder), files, params, LOADERS)
    return load(found, checkpoint, semantic_checkpoint, device)


def find_images(places: Sequence[Path]) -> list[Path]:
    """Image files among paths; a folder stands for the images in it.

    Raises:
        DataError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
        elif place.exists():
            found.append(place)
        else:
            raise DataError(f"{place} does not exist; give images or folders of images")
    if not found:
        raise DataError(f"no image ({', '.join(SUFFIXES)}) in {', '.join(map(str, places))}; give another folder")
    return found


def predict(
    model: Model,
    images: Sequence[Path],
    out: Path,
    min_score: float | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Segment image files; write `out/results.json` and an overlay per image.

    results.json: {"schema": 1, "images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}],
    "annotations": COCO results with `category_id`, `score`, `segmentation` (RLE), `bbox`}; unknown objects have the
    last category. All images are checked before anything is written.

    Args:
        min_score: minimum score of a detection; none means the model's own.
        advance: called with 1 after each image.

    Raises:
        ImageError: an image cannot be read (names the file).
    """
    from samif.inference.overlay import draw_instances

    stems = _stems(images)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    predictions: list[Prediction] = []
    for path in images:
        inspect_image(path)  # a broken image is refused before anything is written
    out.mkdir(parents=True, exist_ok=True)
    for number, (path, stem) in enumerate(zip(images, stems, strict=True), start=1):
        pixels = read_image(path)
        found = model.predict(pixels, min_score)
        predictions.append(Prediction(path, found))
        records.append({"id": number, "file_name": path.name, "width": found.width, "height": found.height})
        annotations += found.to_coco(number)
        drawn = draw_instances(pixels, found.rles, list(found.class_names), [float(score) for score in found.scores])
        _save_jpeg(out / f"{stem}.overlay.jpg", drawn)
        advance(1)
    categories = [{"id": number, "name": name} for number, name in enumerate(model.categories, start=1)]
    content = {"schema": 1, "images": records, "categories": categories, "annotations": annotations}
    files.commit(out / "results.json", (json.dumps(content) + "\n").encode())
    return predictions


def _stems(images: Sequence[Path]) -> list[str]:
    """Names for overlays; images of one name from several folders are numbered."""
    taken = {path.stem for path in images}
    stems: list[str] = []
    for path in images:
        stem = path.stem
        if stem in stems:
            stem = next(name for number in count(2) if (name := f"{path.stem}-{number}") not in taken)
            taken.add(stem)
        stems.append(stem)
    return stems


def _save_jpeg(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    with files.written(path) as draft:
        Image.fromarray(pixels).save(draft, format="JPEG", quality=92)
