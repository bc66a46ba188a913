"""CVAT for images 1.1: one XML file of shapes by image."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_xml
from samif.dataset.formats.image_files import sizes
from samif.dataset.formats.labels import LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import ellipse, numbers, pasted, rectangle, row_runs
from samif.dataset.values import whole
from samif.errors import DataError

_BOX = ("xtl", "ytl", "xbr", "ybr")
_ELLIPSE = ("cx", "cy", "rx", "ry")


def read(source: Source) -> Labels:
    """Labels of one file.

    Raises:
        DataError: the file is no XML, or that of another tool or of CVAT's tracks in a video.
    """
    path = source.path
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*.xml")) if read_xml(file).tag == "annotations"]
        if len(files) != 1:
            raise DataError(f"{path} holds {len(files)} XML files of CVAT; name the one to import")
        path = files[0]
    root = read_xml(path)
    if root.tag != "annotations":
        raise DataError(f"{path} is no XML file of CVAT; export the annotations as 'CVAT for images 1.1'")
    if root.find("track") is not None and root.find("image") is None:
        raise DataError(f"{path} holds the tracks of a video; export the annotations as 'CVAT for images 1.1'")
    classes = [name for e in root.iterfind("./meta//label/name") if (name := (e.text or "").strip())]
    images = []
    for element in root.iterfind("image"):
        subset = element.get("subset")
        if source.options.split is not None and subset != source.options.split:
            source.findings.tally("images of other splits", NOTHING_TO_DO, subset)
            continue
        image = source.image(element.get("name", ""), path.parent, len(element))
        if image is None:
            continue
        width, height = whole(element.get("width")), whole(element.get("height"))
        size = (width, height) if width and height else None
        actual = sizes(image)
        frame = size or (actual[0] if actual else (0, 0))
        place = element.get("name", "")
        outlines = [outline for shape in element for outline in _outlines(source, place, shape, frame)]
        images.append(LabelledImage(image, size, outlines))
    return Labels(classes, images)


def _outlines(source: Source, place: str, shape: Element, size: tuple[int, int]) -> Iterator[Outline]:
    if shape.tag not in ("polygon", "box", "ellipse", "mask"):
        source.other_shape(shape.tag, place)
        return
    category = source.class_name(shape.get("label"), place)
    if category is None:
        return
    if shape.find("attribute") is not None:
        source.findings.tally("labels with attributes, which were not imported", NOTHING_TO_DO)
    group = shape.get("group_id") or ""
    group = "" if group == "0" else group
    turn = (numbers([shape.get("rotation") or "0"]) or [0.0])[0]
    if shape.tag == "polygon":
        texts = [text for pair in shape.get("points", "").split(";") for text in pair.split(",") if text.strip()]
        flat = numbers(texts)
        if not flat:
            source.leave_out(place, "has a polygon without valid points", "outline the object again")
        else:
            yield Outline(category, (flat,), group)
    elif shape.tag == "mask":
        yield from _mask(source, place, shape, category, group, size)
    else:
        values = numbers([shape.get(key) for key in (_BOX if shape.tag == "box" else _ELLIPSE)])
        if values is None:
            source.leave_out(place, f"has a {shape.tag} without valid numbers", "outline the object again")
        elif shape.tag == "box":
            x, y, right, bottom = values
            yield Outline(category, (rectangle(x, y, right - x, bottom - y, turn),), group, box=True)
        else:
            source.findings.tally("ellipses taken as polygons", NOTHING_TO_DO)
            yield Outline(category, (ellipse(values[0], values[1], values[2], values[3], turn),), group)


def _mask(
    source: Source, place: str, shape: Element, category: str, group: str, size: tuple[int, int]
) -> Iterator[Outline]:
    """Run lengths row by row inside of a box."""
    box = [whole(shape.get(key)) for key in ("left", "top", "width", "height")]
    counts = [whole(text) for text in shape.get("rle", "").split(",")]
    valid = [run for run in counts if run is not None]
    left, top, width, height = (value if value is not None else -1 for value in box)
    part = row_runs(valid, width, height) if len(valid) == len(counts) and None not in box else None
    rle = None if part is None else pasted(part, left, top, *size)
    if rle is None:
        source.leave_out(place, "has a mask whose run lengths do not fit its box or image", "paint the object again")
    else:
        yield Outline(category, (rle,), group)
