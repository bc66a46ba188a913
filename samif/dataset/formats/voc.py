"""Pascal VOC: SegmentationObject and SegmentationClass, PNG files whose values are objects and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_text, read_xml
from samif.dataset.formats.image_files import Found
from samif.dataset.formats.labels import LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import LabelMap, connected, encode, numbers, read_label_map, rectangle
from samif.dataset.values import whole
from samif.errors import DataError

OBJECTS, CLASSES, IMAGES = "SegmentationObject", "SegmentationClass", "JPEGImages"
_VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_BACKGROUND = ("background", "_background_", "__background__")
_VOID = 224 * 65536 + 224 * 256 + 192
"""Colour of value 255: the border of objects, which belongs to none."""


@dataclass(frozen=True)
class ClassTable:
    """Class names by value and by colour of a class mask, and the file that they stand in ("" for VOC's own)."""

    by_value: dict[int, str]
    by_colour: dict[int, str]
    file: str

    def name(self, masks: LabelMap, value: int, colour: int) -> str | None:
        if masks.coloured or (masks.palette is not None and self.by_colour):
            return self.by_colour.get(colour)
        return self.by_value.get(value)


def read(source: Source) -> Labels:
    """Labels of the images that have a mask.

    Raises:
        DataError: there is no folder of masks.
    """
    root = source.folder if source.folder.name not in (OBJECTS, CLASSES) else source.folder.parent
    objects, classes = root / OBJECTS, root / CLASSES
    if not classes.is_dir():
        raise DataError(f"{root} has no folder {CLASSES}, which names the classes of the masks; export it too")
    table = _table(root)
    stems = _stems(source, root)
    images = []
    for file in sorted((objects if objects.is_dir() else classes).glob("*.png")):
        if stems is not None and file.stem not in stems:
            continue
        found = _image(source, root, file.stem)
        if found.path is None:
            source.no_file(
                file.name, f"has {found.count} images of its name" if found.count else "has no image file", 1
            )
            continue
        try:
            class_map = read_label_map(classes / file.name)
            object_map = read_label_map(file) if objects.is_dir() else None
        except DataError as error:
            source.leave_out(file.name, f"cannot be used: {error}", "export the masks again", "masks cannot be read")
            continue
        outlines = list(_outlines(source, file.name, object_map, class_map, table))
        _note_boxes(source, root / "Annotations" / f"{file.stem}.xml", len(outlines))
        images.append(LabelledImage(found.path, class_map.size, outlines))
    if not objects.is_dir():
        source.change(root.name, f"has no {OBJECTS}; each connected part of a class is taken as an object",
                      "check objects that touch or are cut in two")  # fmt: skip
    images += _boxes_alone(source, root, {image.path.stem for image in images}, stems)
    return Labels([name for name in table.by_value.values() if name not in _BACKGROUND] if table.file else [], images)


def _image(source: Source, root: Path, stem: str) -> Found:
    folder = source.finder.folder if source.finder.given else root / IMAGES
    same = [path for end in (".jpg", ".png", ".jpeg", ".JPG", ".PNG") if (path := folder / f"{stem}{end}").is_file()]
    return Found(same[0]) if len(same) == 1 else source.finder.of_stem(stem) if source.finder.given else Found(None)


def _stems(source: Source, root: Path) -> set[str] | None:
    if source.options.split is None:
        return None
    file = root / "ImageSets" / "Segmentation" / f"{source.options.split}.txt"
    if not file.is_file():
        raise DataError(f"{file} does not exist; name a split that has such a list")
    return {line.split()[0] for line in read_text(file).splitlines() if line.strip()}


def _table(root: Path) -> ClassTable:
    """Names by CVAT's labelmap.txt (`name:r,g,b:parts:actions`), labelme's class_names.txt, or VOC's own list."""
    colours = colour_codes()
    labelmap = root / "labelmap.txt"
    if labelmap.is_file():
        by_value: dict[int, str] = {}
        by_colour: dict[int, str] = {}
        for line in read_text(labelmap).splitlines():
            parts = line.rsplit(":", 3)
            if line.startswith("#") or len(parts) != 4:
                continue
            value, rgb = len(by_value), numbers(parts[1].split(","))
            by_value[value] = parts[0]
            if rgb is not None and len(rgb) == 3:
                by_colour[int(rgb[0]) * 65536 + int(rgb[1]) * 256 + int(rgb[2])] = parts[0]
            elif value < len(colours):  # no colour is given: VOC's own, in the order of the lines
                by_colour.setdefault(colours[value], parts[0])
        return ClassTable(by_value, by_colour, labelmap.name)
    listed = next((file for name in ("class_names.txt", "classes.txt") if (file := root / name).is_file()), None)
    lines = (
        [line.strip() for line in read_text(listed).splitlines() if line.strip()] if listed else ["background", *_VOC]
    )
    names = [line for line in lines if line != "__ignore__"]
    if names and names[0] not in _BACKGROUND:
        names.insert(0, "background")
    by_value = dict(enumerate(names))
    by_colour = {colours[value]: name for value, name in by_value.items() if value < len(colours)}
    return ClassTable(by_value, by_colour, listed.name if listed else "")


def colour_codes() -> list[int]:
    """Colours of the values 0 to 255 in VOC's palette, as 65536 r + 256 g + b."""
    codes = []
    for value in range(256):
        rgb = [sum((value >> (3 * step + channel) & 1) << (7 - step) for step in range(3)) for channel in range(3)]
        codes.append(rgb[0] * 65536 + rgb[1] * 256 + rgb[2])
    return codes


def _outlines(
    source: Source, place: str, objects: LabelMap | None, classes: LabelMap, table: ClassTable
) -> Iterator[Outline]:
    void = _void(classes)
    if void.any():
        source.findings.tally("masks with a border (value 255) that belongs to no object",
                              NOTHING_TO_DO, place)  # fmt: skip
    if objects is not None and objects.size != classes.size:
        source.leave_out(place, f"has masks of different sizes in {OBJECTS} and {CLASSES}", "export the masks again")
        return
    colours = classes.colours
    for mask in _masks(objects, classes, void):
        inside = mask & ~void & (classes.values != 0)
        if not inside.any():
            source.leave_out(place, f"has an object without a class in {CLASSES}", "export the masks again")
            continue
        (value, pixels), *others = Counter(classes.values[inside].tolist()).most_common()
        if others and pixels < mask.sum():
            source.change(place, "has an object of several classes, the most frequent was taken", "check the masks")
        colour = int(colours[inside][classes.values[inside] == value][0])
        raw = table.name(classes, value, colour)
        if raw is None and source.options.default_class is None:
            named = f"colour {colour:06x}" if classes.coloured else f"value {value}"
            source.leave_out(place, f"has a class mask of {named}, which has no name", "name it in labelmap.txt",
                             "has a class mask whose value has no name")  # fmt: skip
        elif raw not in _BACKGROUND and (category := source.class_name(raw, place)) is not None:
            yield Outline(category, (encode(mask),))


def _masks(objects: LabelMap | None, classes: LabelMap, void: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.bool_]]:
    if objects is None:
        for value in np.unique(classes.values[(classes.values != 0) & ~void]):
            yield from connected(classes.values == value)
        return
    empty = (objects.values == 0) | _void(objects)
    for value in np.unique(objects.values[~empty]):
        yield (objects.values == value) & ~empty


def _void(masks: LabelMap) -> npt.NDArray[np.bool_]:
    void: npt.NDArray[np.bool_] = masks.values == (_VOID if masks.coloured else 255)
    return void


def _note_boxes(source: Source, file: Path, masks: int) -> None:
    """Objects that the image's XML file has beyond its masks."""
    if file.is_file():
        try:
            boxes = len(read_xml(file).findall("object"))
        except DataError as error:
            source.change(file.name, f"cannot be used: {error}", "export it again", "label files cannot be read")
            return
        for _ in range(boxes - masks):
            source.leave_out(file.name, "has a box without an outline", "outline the object, or give --boxes outline")


def _boxes_alone(source: Source, root: Path, done: set[str], stems: set[str] | None) -> Iterator[LabelledImage]:
    """Images that have an XML file of boxes and no mask."""
    for file in sorted((root / "Annotations").glob("*.xml")):
        if file.stem in done or (stems is not None and file.stem not in stems):
            continue
        try:
            element = read_xml(file)
        except DataError as error:
            source.leave_out(file.name, f"cannot be used: {error}", "export it again", "label files cannot be read")
            continue
        found = _image(source, root, file.stem)
        outlines = []
        for item in element.findall("object"):
            box = numbers([item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")])
            category = source.class_name(item.findtext("name"), file.name)
            if box is not None and category is not None:  # counted from 1, both ends inside
                x, y, right, bottom = box[0] - 1, box[1] - 1, box[2], box[3]
                outlines.append(Outline(category, (rectangle(x, y, right - x, bottom - y),), box=True))
        width, height = whole(element.findtext("size/width")), whole(element.findtext("size/height"))
        if outlines and found.path is not None:
            yield LabelledImage(found.path, (width, height) if width and height else None, outlines)
