"""VGG Image Annotator 1 and 2: one JSON file of regions by image, as project or as annotations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_json
from samif.dataset.formats.labels import LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import ellipse, numbers, rectangle
from samif.dataset.values import get
from samif.errors import DataError

_USUAL = ("class", "label", "name", "category", "type", "object", "class_name", "object_name")
_SHAPES = ("polygon", "polyline", "rect", "circle", "ellipse")


def read(source: Source) -> Labels:
    """Labels of one file.

    Raises:
        DataError: it is no VIA file, or it is not clear which attribute of the regions is the class.
    """
    content = read_json(source.path)
    if not is_via(content):
        raise DataError(f"{source.path} is no file of VGG Image Annotator 1 or 2; export the annotations as JSON")
    records = records_of(content)
    found = [(record, _regions(record)) for record in records]
    key = _class_key(source, content, [region for _, regions in found for region in regions])
    options = get(get(get(get(content, "_via_attributes"), "region"), key or ""), "options")
    images = []
    for record, regions in found:
        path = source.image(str(record["filename"]), source.folder, len(regions))
        if path is None:
            continue
        outlines = [outline for region in regions for outline in _outlines(source, record["filename"], region, key)]
        if record.get("file_attributes"):
            source.findings.tally("images with file attributes, which were not imported", NOTHING_TO_DO)
        images.append(LabelledImage(path, None, outlines))
    return Labels([name for name in options if name] if isinstance(options, dict) else [], images)


def is_via(content: object) -> bool:
    records = records_of(content)
    return bool(records) and all("filename" in record and "regions" in record for record in records)


def records_of(content: object) -> list[dict[str, Any]]:
    """The records of the images, in a project or in a file of annotations alone."""
    if not isinstance(content, dict):
        return []
    inner = content.get("_via_img_metadata", content)
    records = list(inner.values()) if isinstance(inner, dict) else []
    return records if all(isinstance(record, dict) for record in records) else []


def _regions(record: dict[str, Any]) -> list[Any]:
    """Regions, which are a list in VIA 2 and an object of numbered regions in VIA 1."""
    regions = record["regions"]
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []


def _class_key(source: Source, content: object, regions: list[Any]) -> str | None:
    if source.options.class_key is not None:
        return source.options.class_key
    used: Counter[str] = Counter()
    for region in regions:
        attributes = get(region, "region_attributes")
        used.update(key for key, value in attributes.items() if value) if isinstance(attributes, dict) else None
    usual = [key for word in _USUAL for key in used if key.strip().lower() == word]
    defined = get(get(content, "_via_attributes"), "region") or {}
    chosen = [key for key in used if get(defined.get(key), "type") in ("dropdown", "radio")]
    for keys in (list(used), usual[:1], chosen):
        if len(keys) == 1:
            others = sorted(used.keys() - set(keys))
            if others:
                source.change(
                    source.path.name,
                    f"the class is taken from attribute '{keys[0]}'; not imported: {', '.join(others)}",
                    "give --class-key if another attribute is the class",
                )
            return keys[0]
    if used:
        raise DataError(
            f"{source.path} gives its regions the attributes {', '.join(sorted(used))}; "
            "name the one that holds the class with --class-key"
        )
    return None


def _outlines(source: Source, place: str, region: object, key: str | None) -> Iterator[Outline]:
    shape = get(region, "shape_attributes")
    kind = get(shape, "name")
    if kind not in _SHAPES or kind == "polyline":
        source.other_shape(kind, place)
        return
    category = source.class_name(_value(source, place, get(get(region, "region_attributes"), key or "")), place)
    if category is None:
        return
    if kind == "polygon":
        xs, ys = numbers(get(shape, "all_points_x")), numbers(get(shape, "all_points_y"))
        if xs is None or ys is None or len(xs) != len(ys):
            source.leave_out(place, "has a polygon without valid points", "outline the object again")
        else:
            yield Outline(category, ([value for xy in zip(xs, ys, strict=True) for value in xy],))
        return
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
    values = numbers([get(shape, name) for name in keys[kind]])
    if values is None:
        source.leave_out(place, f"has a {kind} without valid numbers", "outline the object again")
    elif kind == "rect":
        yield Outline(category, (rectangle(values[0], values[1], values[2], values[3]),), box=True)
    else:
        theta = numbers([get(shape, "theta") or 0])
        source.findings.tally("circles and ellipses taken as polygons", NOTHING_TO_DO)
        degrees = math.degrees(theta[0]) if theta and kind == "ellipse" else 0.0
        yield Outline(category, (ellipse(values[0], values[1], values[2], values[-1], degrees),))


def _value(source: Source, place: str, value: object) -> object:
    """The class in an attribute: a text, or the box that is ticked of several."""
    if not isinstance(value, dict):
        return value or None
    ticked = [name for name, is_ticked in value.items() if is_ticked]
    if len(ticked) > 1:
        source.change(place, f"has a region of several classes, '{ticked[0]}' was taken", "tick one class",
                      "have a region of several classes, of which the first was taken")  # fmt: skip
    return ticked[0] if ticked else None
