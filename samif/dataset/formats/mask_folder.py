"""Folders of masks: PNG files in `masks`, as CLASS/IMAGE.png, IMAGE/CLASS_1.png or IMAGE.png."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.image_files import images_below
from samif.dataset.formats.labels import DEFAULT_CLASS, LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import LabelMap, connected, encode, read_label_map
from samif.errors import DataError

FOLDERS = ("masks", "mask")
_DEPTH = 3
_SUFFIX = re.compile(r"[-_. ](masks?|labels?|seg|segmentation|gt)$", re.IGNORECASE)
_NUMBER = re.compile(r"[-_. ]*\(?\d+\)?$")
_NO_CLASS = re.compile(r"[0-9a-f]{16,}|masks?|objects?|instances?|labels?|", re.IGNORECASE)
_CORE = 0.6
"""Share of the filled pixels near white from which a mask of many grey values is a drawing with soft edges."""
_MOST = 4096
"""Values of a mask beyond which it is a photograph."""


@dataclass(frozen=True)
class _Mask:
    """A mask file of one image; `whole`: the file is one object."""

    file: Path
    image: Path
    category: str | None
    whole: bool


def read(source: Source) -> Labels:
    """Labels of the images that have a mask.

    Raises:
        DataError: there is no folder of masks.
    """
    roots = mask_roots(source.folder)
    if not roots:
        raise DataError(
            f"{source.folder} has no folder '{FOLDERS[0]}'; put the masks there, and the images in 'images'"
        )
    by_image: defaultdict[Path, list[_Mask]] = defaultdict(list)
    for mask in _masks(source, roots):
        by_image[mask.image].append(mask)
    images = []
    for path in sorted(by_image):
        maps = [(mask, found) for mask in by_image[path] if (found := _open(source, mask)) is not None]
        of_size = [(mask, found) for mask, found in maps if found.size == maps[0][1].size]
        for mask, _ in maps[len(of_size) :] if len(of_size) < len(maps) else ():
            source.leave_out(mask.file.name, "is of another size than the other masks of its image", "export it again")
        outlines = [o for mask, found in of_size for o in _outlines(source, mask, found)]
        if maps:
            images.append(LabelledImage(path, maps[0][1].size, outlines))
    return Labels([], images)


def mask_roots(folder: Path) -> list[Path]:
    """Folders named `masks` down to a depth of three."""
    if folder.name.lower() in FOLDERS:
        return [folder]
    levels = [folder]
    found: list[Path] = []
    for _ in range(_DEPTH):
        below = [path for level in levels for path in sorted(level.iterdir()) if path.is_dir()]
        found += [path for path in below if path.name.lower() in FOLDERS]
        levels = [path for path in below if path.name.lower() not in FOLDERS and not path.name.startswith(".")]
    return found


def _masks(source: Source, roots: list[Path]) -> Iterator[_Mask]:
    stems: defaultdict[str, list[Path]] = defaultdict(list)
    for path in source.finder.all:
        if not any(path.is_relative_to(root) for root in roots):
            stems[path.stem].append(path)
    for root in roots:
        near = [p for p in images_below(root.parent) if not p.is_relative_to(root)] if len(roots) > 1 else []
        for file in images_below(root):
            above = file.relative_to(root).parts[:-1]
            own = file.stem if file.stem in stems else _SUFFIX.sub("", file.stem)
            folder = next((name for name in above if name in stems), None)
            if len(near) == 1:  # a folder per image, with one image and its masks
                images, category, whole = near, class_of(file.stem), True
            elif folder is not None and len(stems[folder]) == 1:
                images, category, whole = stems[folder], class_of(file.stem), True
            else:
                images, category, whole = stems[own], above[0] if above else None, False
            if len(images) == 1:
                yield _Mask(file, images[0], category, whole)
            else:
                why = (
                    f"is a mask that {len(images)} images have the name of" if images else "is a mask without an image"
                )
                source.no_file(file.relative_to(root).as_posix(), why, 1)


def class_of(stem: str) -> str | None:
    """The class in the name of a mask file of one object; None where it is only a number or a digest."""
    name = _NUMBER.sub("", stem)
    return None if _NO_CLASS.fullmatch(stem) or _NO_CLASS.fullmatch(name) else name


def _open(source: Source, mask: _Mask) -> LabelMap | None:
    try:
        return read_label_map(mask.file)
    except DataError as error:
        source.leave_out(mask.file.name, f"cannot be used: {error}", "export it again", "masks cannot be read")
        return None


def _outlines(source: Source, mask: _Mask, found: LabelMap) -> Iterator[Outline]:
    place = mask.file.name
    name = mask.category
    if name is None:
        name = source.options.default_class or DEFAULT_CLASS
        source.findings.tally(
            f"masks whose name holds no class, taken as class '{name}'", "give --default-class", place
        )
    category = source.class_name(name, place)
    if category is None:
        return
    values, several = _values(source, place, found)
    filled = values != 0
    if not filled.any():
        source.findings.tally("masks without a pixel of an object", NOTHING_TO_DO, place)
    elif mask.whole:
        yield Outline(category, (encode(filled),))
    elif several:
        for value in np.unique(values[filled]):
            yield Outline(category, (encode(values == value),))
    else:
        parts = list(connected(filled))
        if len(parts) > 1:
            source.change(place, f"has one value and {len(parts)} connected parts, each taken as an object",
                          "check objects that touch or are cut in two",
                          "has one value and several connected parts, each taken as an object")  # fmt: skip
        for part in parts:
            yield Outline(category, (encode(part),))


def _values(source: Source, place: str, found: LabelMap) -> tuple[npt.NDArray[np.int64], bool]:
    """Values of the objects, 0 for background, and whether there are several."""
    values = found.values
    number = len(np.unique(values[values != 0]))
    if number <= 1:
        return values, False
    grey = not found.coloured and found.palette is None and values.max() <= 255
    if grey and (found.lossy or (number > 8 and np.mean(values[values > 0] > 223) >= _CORE)):
        source.change(place, "has soft edges, pixels from value 128 on were taken", "export masks as PNG, not smoothed")
        return (values >= 128).astype(np.int64), False
    if found.lossy or number > _MOST:
        source.leave_out(place, "is not a mask of clear values", "export it as PNG, one value per object")
        return np.zeros_like(values), False
    return values, True
