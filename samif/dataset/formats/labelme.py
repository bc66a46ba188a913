"""labelme: one JSON file per image, beside the image or in a folder of its own."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_json
from samif.dataset.formats.image_files import sizes
from samif.dataset.formats.labels import LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import ellipse, pasted, points, rectangle
from samif.dataset.values import get, whole
from samif.errors import DataError


def read(source: Source) -> Labels:
    """Labels of one file or of all files below a folder; files that are broken or of another kind are noted."""
    files = sorted(source.path.rglob("*.json")) if source.path.is_dir() else [source.path]
    images = []
    for file in files:
        try:
            content = read_json(file)
        except DataError as error:
            source.leave_out(file.name, f"cannot be used: {error}", "export it again", "label files cannot be read")
            continue
        if not is_labelme(content):
            source.leave_out(file.name, "is no labelme file", "nothing needs to be done if it holds no labels")
            continue
        image = _image(source, file, content)
        if image is not None:
            images.append(image)
    return Labels([], images)


def is_labelme(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _image(source: Source, file: Path, content: dict[str, Any]) -> LabelledImage | None:
    shapes = content["shapes"]
    name = content["imagePath"]
    if not isinstance(name, str) or not name.strip():
        found = source.finder.of_stem(file.stem)
        path = found.path
        if path is None:
            source.no_file(file.name, "names no image", len(shapes))
    else:
        path = source.image(name, file.parent, len(shapes))
    if path is None:
        return None
    width, height = whole(content.get("imageWidth")), whole(content.get("imageHeight"))
    size = (width, height) if width and height else None
    actual = sizes(path)
    frame = size or (actual[0] if actual else (0, 0))
    outlines = [outline for shape in shapes for outline in _outlines(source, file.name, shape, frame)]
    if any(value is True for value in (content.get("flags") or {}).values()):
        source.change(file.name, "has image flags, which were not imported")
    return LabelledImage(path, size, outlines)


def _outlines(source: Source, place: str, shape: object, size: tuple[int, int]) -> Iterator[Outline]:
    kind = get(shape, "shape_type") or "polygon"
    if kind not in ("polygon", "rectangle", "circle", "mask"):
        source.other_shape(kind, place)
        return
    category = source.class_name(get(shape, "label"), place)
    flat = points(get(shape, "points"))
    number = get(shape, "group_id")
    group = "" if number is None else str(number)
    if category is None:
        return
    if flat is None or (kind != "polygon" and len(flat) < 4):
        source.leave_out(place, f"has a {kind} without valid points", "outline the object again")
    elif kind == "polygon":
        yield Outline(category, (flat,), group)
    elif kind == "rectangle":
        xs, ys = flat[0::2], flat[1::2]
        box = rectangle(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
        yield Outline(category, (box,), group, box=True)
    elif kind == "circle":
        radius = math.dist(flat[0:2], flat[2:4])
        source.findings.tally("circles taken as polygons", NOTHING_TO_DO)
        yield Outline(category, (ellipse(flat[0], flat[1], radius, radius),), group)
    else:
        yield from _mask(source, place, category, group, get(shape, "mask"), flat, size)


def _mask(
    source: Source, place: str, category: str, group: str, mask: object, corners: list[float], size: tuple[int, int]
) -> Iterator[Outline]:
    """A mask as PNG in base64, whose first corner is its place in the image."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(mask), validate=True))) as image:
            part = np.asarray(image.convert("L")) > 0
    except (OSError, binascii.Error, ValueError, SyntaxError):
        source.leave_out(place, "has a mask that cannot be decoded", "paint the object again")
        return
    rle = pasted(part, round(corners[0]), round(corners[1]), *size)
    if rle is None:
        source.leave_out(place, "has a mask outside the image", "paint the object again")
    else:
        yield Outline(category, (rle,), group)
