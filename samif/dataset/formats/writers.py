"""Labels as other tools read them: a generator of files per format, each a path below the folder of the labels and its
content.

Formats with masks hold the same pixels. Where a tool edits polygons, an object is written as polygons if they lose
nothing, within MIN_IOU of `polygons`.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import numpy.typing as npt
from PIL import Image

from samif.dataset.formats import coco, label_studio, mask_folder, voc
from samif.dataset.formats.polygons import outline
from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.errors import DataError
from samif.masks.rle import decode, part

Files = Iterator[tuple[str, bytes]]
Lost = Counter[str]
"""Sentences about what a format does not hold, each with its number of objects or images."""

HOLES = "objects have holes, which the format does not hold: they are filled"
CROWDS = "labels are regions of many objects, which the format does not hold: they are left out"
COVERED = "objects lose the pixels that a smaller object covers, as the format gives a pixel to one object"
NO_OBJECT = "images have no object, and the format does not list them"

_MOST_VALUES = 254
"""Objects of an image, and classes, that the 8-bit masks of Pascal VOC hold: 0 is background, 255 a border."""


def _coco(dataset: Dataset, lost: Lost) -> Files:
    yield "instances.json", coco.content_of(dataset)


def _yolo(dataset: Dataset, lost: Lost) -> Files:
    number_of = {name: number for number, name in enumerate(dataset.category_names)}
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for name, number in number_of.items())
    yield "data.yaml", f"path: .\ntrain: images\nnames:\n{listed}".encode()
    for image, name in _by_stem(dataset, ".txt"):
        lines = []
        for annotation in _objects(image, lost):
            polygon = _polygon(annotation, lost)
            shares = [value / (image.height if i % 2 else image.width) for i, value in enumerate(polygon)]
            lines.append(f"{number_of[annotation.category]} {' '.join(f'{share:.8g}' for share in shares)}\n")
        yield f"labels/{name}", "".join(lines).encode()


def _labelme(dataset: Dataset, lost: Lost) -> Files:
    for image, name in _by_stem(dataset, ".json"):
        shapes: list[dict[str, Any]] = []
        for group, annotation in enumerate(_objects(image, lost), start=1):
            found = outline(annotation.rle)
            shape: dict[str, Any] = {"label": annotation.category, "group_id": None, "flags": {}}
            if found.holes:
                x, y, pixels = _box_of(annotation)
                corners = [[x, y], [x + pixels.shape[1] - 1, y + pixels.shape[0] - 1]]
                mask = base64.b64encode(_png(Image.fromarray(pixels))).decode()
                shapes.append(shape | {"shape_type": "mask", "points": corners, "mask": mask})
                continue
            shape |= {"shape_type": "polygon", "group_id": group if len(found.polygons) > 1 else None}
            shapes += [shape | {"points": _pairs(polygon)} for polygon in found.polygons]
        content: dict[str, Any] = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": PurePosixPath(image.file_name).name,
            "imageData": None, "imageHeight": image.height, "imageWidth": image.width,
        }  # fmt: skip
        yield name, _json(content)


def _via(dataset: Dataset, lost: Lost) -> Files:
    records = {}
    for image in dataset.images:
        regions = []
        for annotation in _objects(image, lost):
            flat = _polygon(annotation, lost)
            shape = {"name": "polygon", "all_points_x": flat[0::2], "all_points_y": flat[1::2]}
            regions.append({"shape_attributes": shape, "region_attributes": {"class": annotation.category}})
        path = dataset.path_of(image)
        size = path.stat().st_size if path.is_file() else -1
        record = {"filename": image.file_name, "size": size, "regions": regions, "file_attributes": {}}
        records[f"{image.file_name}{size}"] = record
    yield "via.json", _json(records)


def _cvat(dataset: Dataset, lost: Lost) -> Files:
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for name in dataset.category_names:
        SubElement(SubElement(labels, "label"), "name").text = name
    for number, image in enumerate(dataset.images):
        size = {"width": str(image.width), "height": str(image.height)}
        element = SubElement(root, "image", {"id": str(number), "name": image.file_name, **size})
        for group, annotation in enumerate(_objects(image, lost), start=1):
            found = outline(annotation.rle)
            shape = {"label": annotation.category, "occluded": "0", "z_order": "0"}
            if found.holes:
                x, y, pixels = _box_of(annotation)
                box = {"left": x, "top": y, "width": pixels.shape[1], "height": pixels.shape[0]}
                runs = ", ".join(map(str, _row_runs(pixels)))
                SubElement(element, "mask", shape | {"rle": runs} | {key: str(value) for key, value in box.items()})
                continue
            if len(found.polygons) > 1:
                shape["group_id"] = str(group)
            for polygon in found.polygons:
                text = ";".join(f"{x:.2f},{y:.2f}" for x, y in _pairs(polygon))
                SubElement(element, "polygon", shape | {"points": text})
    yield "annotations.xml", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _label_studio(dataset: Dataset, lost: Lost) -> Files:
    tasks = []
    for number, image in enumerate(dataset.images, start=1):
        results = []
        for annotation in _objects(image, lost):
            found = outline(annotation.rle)
            value: dict[str, Any]
            if found.holes or len(found.polygons) > 1:
                packed = label_studio.pack_brush(decode([annotation.rle])[0])
                kind, value = "brushlabels", {"format": "rle", "rle": packed}
            else:
                points = [[100 * x / image.width, 100 * y / image.height] for x, y in _pairs(found.polygons[0])]
                kind, value = "polygonlabels", {"points": points, "closed": True}
            results.append(
                {
                    "id": f"object-{annotation.id}", "type": kind, "from_name": "label", "to_name": "image",
                    "value": value | {kind: [annotation.category]}, "image_rotation": 0,
                    "original_width": image.width, "original_height": image.height,
                }
            )  # fmt: skip
        address = f"/data/local-files/?d=images/{quote(image.file_name)}"
        tasks.append({"id": number, "data": {"image": address}, "annotations": [{"id": number, "result": results}]})
    yield "label-studio.json", _json(tasks)


def _voc(dataset: Dataset, lost: Lost) -> Files:
    names = ["background", *dataset.category_names]
    colours = voc.colour_codes()
    _check_number(len(dataset.categories), "classes", "the data set")
    rows = [f"{name}:{code >> 16},{code >> 8 & 255},{code & 255}::" for name, code in zip(names, colours, strict=False)]
    yield "labelmap.txt", ("# label:color_rgb:parts:actions\n" + "\n".join(rows) + "\n").encode()
    palette = [channel for code in colours for channel in (code >> 16, code >> 8 & 255, code & 255)]
    for image, name in _by_stem(dataset, ".png", flat=True):
        classes, objects = np.zeros((2, image.height, image.width), dtype=np.uint8)
        annotations = sorted(_objects(image, lost), key=lambda a: -a.area)
        _check_number(len(annotations), "objects", image.file_name)
        covered: set[int] = set()
        for number, annotation in enumerate(annotations, start=1):
            mask = decode([annotation.rle])[0]
            covered |= set(objects[mask].tolist()) - {0}
            classes[mask], objects[mask] = names.index(annotation.category), number
        lost[COVERED] += len(covered)
        for folder, values in ((voc.CLASSES, classes), (voc.OBJECTS, objects)):
            label_map = Image.fromarray(values).convert("P")
            label_map.putpalette(palette)
            yield f"{folder}/{name}", _png(label_map)


def _masks(dataset: Dataset, lost: Lost) -> Files:
    for name in dataset.category_names:
        if "/" in name or "\\" in name or mask_folder.class_of(f"{name}_1") != name:
            raise DataError(f"class '{name}' cannot be the name of a mask file; write another format")
    for image, folder in _by_stem(dataset, "", flat=True):
        annotations = _objects(image, lost)
        lost[NO_OBJECT] += not annotations
        for number, annotation in enumerate(annotations, start=1):
            mask = decode([annotation.rle])[0].astype(np.uint8) * 255
            yield f"masks/{folder}/{annotation.category}_{number}.png", _png(Image.fromarray(mask))


WRITERS: Mapping[str, Callable[[Dataset, Lost], Files]] = {
    "coco": _coco,
    "yolo": _yolo,
    "labelme": _labelme,
    "voc": _voc,
    "via": _via,
    "cvat": _cvat,
    "label-studio": _label_studio,
    "masks": _masks,
}

IMAGE_FOLDERS: Mapping[str, str] = {"labelme": ".", "voc": voc.IMAGES}
"""Folder beside the labels where a format's tools expect the images; `images` for the others."""


def _objects(image: ImageRecord, lost: Lost) -> list[Annotation]:
    lost[CROWDS] += sum(a.crowd for a in image.annotations)
    return [a for a in image.annotations if not a.crowd]


def _polygon(annotation: Annotation, lost: Lost) -> list[float]:
    """The one polygon of an object, for formats that know nothing else."""
    found = outline(annotation.rle)
    lost[HOLES] += found.holes
    return found.joined


def _by_stem(dataset: Dataset, extension: str, flat: bool = False) -> Iterable[tuple[ImageRecord, str]]:
    """Images with the file names of their labels, which differ from theirs by the extension; `flat`: without folders.

    Raises:
        DataError: two images would share one.
    """
    image_of: dict[str, ImageRecord] = {}
    for image in dataset.images:
        path = PurePosixPath(image.file_name).with_suffix(extension)
        first = image_of.setdefault(path.name if flat else path.as_posix(), image)
        if first is not image:
            raise DataError(
                f"{first.file_name} and {image.file_name} would share one label file; write 'coco', or rename one"
            )
    return [(image, name) for name, image in image_of.items()]


def _check_number(number: int, what: str, place: str) -> None:
    if number > _MOST_VALUES:
        raise DataError(f"{place} has {number} {what}, and the masks of Pascal VOC hold {_MOST_VALUES}; write 'coco'")


def _box_of(annotation: Annotation) -> tuple[int, int, npt.NDArray[np.bool_]]:
    """x and y of the box of a mask, and its pixels."""
    x, y, width, height = (int(value) for value in annotation.bbox)
    return x, y, part(annotation.rle, x, y, width, height)


def _row_runs(pixels: npt.NDArray[np.bool_]) -> list[int]:
    """Run lengths row by row, background first."""
    edges = np.flatnonzero(np.diff(pixels.ravel().astype(np.int8), prepend=0, append=2))
    return [int(run) for run in np.diff(edges, prepend=0)]


def _pairs(flat: list[float]) -> list[list[float]]:
    return [[x, y] for x, y in zip(flat[0::2], flat[1::2], strict=True)]


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
