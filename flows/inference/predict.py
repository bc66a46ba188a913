"""Segment images with a model from a folder or the registry: COCO results, a COCO instance file and overlays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flows.inference.image_files import OVERLAY, ImageFile, Skipped
from flows.inference.result_ids import result_ids
from flows.inference.source import LOADERS
from flows.workspace.layout import Layout
from samif.config import Params
from samif.dataset.images import ImageError, inspect_image, read_image
from samif.errors import DataError
from samif.inference.coco_ids import ResultIds
from samif.inference.load import FoundModel, ModelFiles
from samif.inference.load import load_segmenter as load
from samif.io import files
from samif.masks.rle import areas as rle_areas

if TYPE_CHECKING:
    from samif.inference.detections import Detections
    from samif.inference.model import Model
    from samif.inference.segment import Segmenter


@dataclass(frozen=True)
class Prediction:
    """The detections in one image file."""

    image: ImageFile
    detections: Detections


@dataclass(frozen=True)
class Predicted:
    """What `predict` did: predictions in the order of the images, images that could not be read, ids of the results
    and their number."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]
    ids: ResultIds
    results: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell of the results: about their ids, and that there is none."""
        nothing = () if self.results else ("results.json is an empty list, which COCO.loadRes refuses",)
        return (*self.ids.notes, *nothing)


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


def predict(
    model: Model,
    images: Sequence[ImageFile],
    out: Path,
    min_score: float | None = None,
    advance: Callable[[int], None] = lambda _: None,
    annotations: Path | None = None,
    workspace: tuple[Layout, Params] | None = None,
) -> Predicted:
    """Segment image files; write `out/results.json`, `out/instances.json` and an overlay per image.

    results.json: a list of COCO results with `image_id`, `category_id`, `segmentation` (RLE), `bbox`, `score`, as
    `COCO.loadRes` of pycocotools reads them; see `result_ids` for the ids. Images that the COCO file does not list are
    left out. instances.json: a COCO instance file with the same of every image, {"schema": 1, "images": [{"id",
    "file_name", "width", "height"}], "categories": [{"id", "name"}], "annotations"}, and `id`, `area` and `iscrowd` in
    its annotations; unknown objects have the last category. Coordinates are those of the upright image.

    All images are checked before anything is written. Those of a folder that cannot be read are skipped.

    Args:
        min_score: minimum score of a detection; none means the model's own.
        advance: called with 1 after each image.
        annotations: COCO instance file whose ids are used.
        workspace: the one whose COCO files are looked into where `annotations` is none.

    Raises:
        ImageError: an image that a person named cannot be read (names the file).
        DataError: no image can be read.
        SamifError: `annotations` cannot be used.
    """
    from samif.inference.overlay import draw_instances
    from samif.inference.segment import UNKNOWN

    readable, sizes, skipped = _readable(images)
    advance(len(skipped))
    ids = result_ids(readable, sizes, model.categories, UNKNOWN, annotations, workspace)
    results: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    predictions: list[Prediction] = []
    out.mkdir(parents=True, exist_ok=True)
    for image, stem, id_, listed in zip(readable, _stems(readable), ids.images, ids.listed, strict=True):
        pixels = read_image(image.path)
        found = model.predict(pixels, min_score)
        predictions.append(Prediction(image, found))
        records.append({"id": id_, "file_name": image.name, "width": found.width, "height": found.height})
        coco = found.to_coco(id_, ids.classes)
        results += coco if listed else []
        numbers = range(len(instances) + 1, len(instances) + len(coco) + 1)
        areas = rle_areas(found.rles)
        instances += [
            {"id": number, **one, "area": int(area), "iscrowd": 0}
            for number, one, area in zip(numbers, coco, areas, strict=True)
        ]
        drawn = draw_instances(pixels, found.rles, list(found.class_names), [float(score) for score in found.scores])
        _save_jpeg(out / f"{stem}{OVERLAY}", drawn)
        advance(1)
    categories = [{"id": id_, "name": name} for name, id_ in ids.classes.items()]
    content = {"schema": 1, "images": records, "categories": categories, "annotations": instances}
    files.commit(out / "instances.json", (json.dumps(content) + "\n").encode())
    files.commit(out / "results.json", (json.dumps(results) + "\n").encode())
    return Predicted(tuple(predictions), tuple(skipped), ids, len(results))


def _readable(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[tuple[int, int]], list[Skipped]]:
    """Images that can be decoded, their upright sizes (width, height), and the others with the reason."""
    readable: list[ImageFile] = []
    sizes: list[tuple[int, int]] = []
    skipped: list[Skipped] = []
    for image in images:
        try:
            sizes.append(inspect_image(image.path).size)
            readable.append(image)
        except ImageError as error:
            if image.named:
                raise
            skipped.append(Skipped(image.path, error.what))
    if not readable:
        first = skipped[0]
        raise DataError(f"none of {len(skipped)} images can be read, the first is {first.path}: it {first.reason}")
    return readable, sizes, skipped


def _stems(images: Sequence[ImageFile]) -> list[str]:
    """Names for overlays; images of one name, from several folders or of several formats, are numbered."""
    taken = {image.path.stem for image in images}
    stems: list[str] = []
    for image in images:
        stem = image.path.stem
        if stem in stems:
            stem = next(name for number in count(2) if (name := f"{image.path.stem}-{number}") not in taken)
            taken.add(stem)
        stems.append(stem)
    return stems


def _save_jpeg(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    with files.written(path) as draft:
        Image.fromarray(pixels).save(draft, format="JPEG", quality=92)
