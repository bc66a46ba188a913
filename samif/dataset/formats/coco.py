"""COCO instances: read, where the records are left to the reader of COCO files, image names apart; and written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samif.dataset.coco_json import load_json
from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_json
from samif.dataset.formats.labels import Outline, Source
from samif.dataset.formats.outlines import numbers, rectangle
from samif.dataset.model import Dataset
from samif.dataset.segmentation import BadSegmentation, Rle, read_mask
from samif.dataset.values import file_name_of, get, key_of
from samif.errors import DataError

Polygons = dict[int | None, Any]
"""The `segmentation` of labels by their id."""

_KEYS = ("images", "annotations", "categories")


def read(source: Source) -> tuple[dict[str, list[Any]], dict[str, Path]]:
    """Content of a COCO file without the images that have no file, and the image files by `file_name`.

    Raises:
        ObjectMissing, DataError: there is no COCO instance file, or it is another one.
    """
    raw = load_json(_file(source.path))
    files: dict[str, Path] = {}
    images, gone = [], set()
    labels = [key_of(get(record, "image_id")) for record in raw["annotations"]]
    number_of_labels = Counter(labels)
    for record in raw["images"]:
        name, id_ = file_name_of(get(record, "file_name")), key_of(get(record, "id"))
        path = source.image(name, source.folder, number_of_labels[id_]) if name is not None else None
        if name is not None and path is None:
            gone.add(id_)
            continue
        if name is not None and path is not None:
            files[name] = path
        images.append(record)
    annotations = [
        _annotation(source, record)
        for record, image in zip(raw["annotations"], labels, strict=True)
        if image is None or image not in gone
    ]
    return {"images": images, "annotations": annotations, "categories": raw["categories"]}, files


def is_coco(content: object) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = [file for file in sorted(path.rglob("*.json*")) if is_coco(_content(file))]
    if len(files) != 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{path} holds {len(files)} COCO instance files{f' ({names})' if names else ''}; name one")
    return files[0]


def _content(file: Path) -> object:
    try:
        return read_json(file)
    except DataError:
        return None


def _annotation(source: Source, record: Any) -> Any:
    """A record as it is, with a box as outline if the options say so; what is not kept of it is noted."""
    if not isinstance(record, dict):
        return record
    if any(record.get("keypoints") or ()):
        source.findings.tally("labels with key points, which were not imported", NOTHING_TO_DO)
    if record.get("attributes"):
        source.findings.tally("labels with attributes, which were not imported", NOTHING_TO_DO)
    box = numbers(record.get("bbox"))
    if not record.get("segmentation") and box is not None and len(box) == 4 and source.options.boxes == "outline":
        outline = source.box(
            Outline("", (rectangle(box[0], box[1], box[2], box[3]),)), f"annotation {record.get('id')}"
        )
        return {**record, "segmentation": list(outline.parts) if outline is not None else []}
    return record


def content_of(dataset: Dataset, polygons: Mapping[int | None, Any] | None = None) -> bytes:
    """A data set as a COCO file of compressed RLE; `polygons`, by annotation id, that need no change stay polygons."""
    id_of = {category.name: category.id for category in dataset.categories}
    annotations = [
        {
            "id": a.id,
            "image_id": image.id,
            "category_id": id_of[a.category],
            "segmentation": _unchanged((polygons or {}).get(a.id), a.rle) or a.rle,
            "bbox": list(a.bbox),
            "area": a.area,
            "iscrowd": int(a.crowd),
        }
        for image in dataset.images
        for a in image.annotations
    ]
    images = [
        {"id": p.id, "file_name": p.file_name, "width": p.width, "height": p.height, "sha256": p.sha256}
        for p in dataset.images
    ]
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _unchanged(segmentation: Any, rle: Rle) -> Any:
    """Polygons that give exactly that mask without a change, else None."""
    if not isinstance(segmentation, list) or not all(isinstance(part, list) for part in segmentation):
        return None
    try:
        mask = read_mask(segmentation, rle["size"][1], rle["size"][0])
    except BadSegmentation:
        return None
    plain = all(isinstance(value, int | float) for part in segmentation for value in part)
    return segmentation if plain and mask.rle == rle and not mask.changes else None
