"""COCO instances: the records are left to the reader of COCO files, image names apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from samif.dataset.coco_json import load_json
from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_json
from samif.dataset.formats.labels import Outline, Source
from samif.dataset.formats.outlines import numbers, rectangle
from samif.dataset.values import file_name_of, get, key_of
from samif.errors import DataError

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
