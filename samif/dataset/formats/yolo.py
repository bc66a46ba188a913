"""YOLO segmentation: data.yaml with the classes, a text file per image, a polygon a line in shares of the image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from samif.dataset.findings import NOTHING_TO_DO
from samif.dataset.formats.documents import read_text
from samif.dataset.formats.image_files import images_below, sizes
from samif.dataset.formats.labels import LabelledImage, Labels, Outline, Source
from samif.dataset.formats.outlines import numbers, rectangle
from samif.dataset.values import get, whole
from samif.errors import DataError
from samif.io.image_formats import is_image_name

SPLITS = ("train", "val", "valid", "test")
_FARTHEST = 1.5
"""Shares of the image beyond which a coordinate is in pixels."""


def read(source: Source) -> Labels:
    """Labels of the images of all splits or of one.

    Raises:
        DataError: there is no data.yaml, or it names no classes or no image folder.
    """
    config = config_of(source.path)
    content = load_config(config) if config is not None else {}
    classes = _classes(config, content, source.folder)
    apart = _label_files(source.folder) if source.finder.given else {}
    read_files: set[Path] = set()
    images, without = [], 0
    for image in _images(source, config, content):
        labels = _label_file(image) or apart.get(image.stem)
        if labels is None:
            without += 1
            images.append(LabelledImage(image, None))
            continue
        read_files.add(labels)
        size = sizes(image)
        rows = [row for line in read_text(labels).splitlines() if (row := line.split())]
        if size is None:
            source.no_file(labels.name, "has an image that cannot be read", len(rows))
            continue
        pose = get(content, "kpt_shape") is not None
        outlines = [o for row in rows for o in _outlines(source, labels.name, row, classes, size[0], pose)]
        images.append(LabelledImage(image, None, outlines))
    if without:
        source.change(
            source.path.name, f"has {without} images without a label file, taken as images without objects",
            "label them, or take them out",
        )  # fmt: skip
    if source.options.split is None:
        _note_label_files_without_image(source, read_files)
    return Labels(list(classes.values()), images)


def config_of(path: Path) -> Path | None:
    """The YAML file that names the classes; None where there is none."""
    if path.is_file():
        return path
    files = [file for end in ("*.yaml", "*.yml") for file in sorted(path.glob(end))]
    named = [file for file in files if "names" in load_config(file)]
    if len(named) > 1:
        raise DataError(f"{path} holds several YAML files with classes ({', '.join(f.name for f in named)}); name one")
    return named[0] if named else None


def load_config(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe", pure=True).load(read_text(path))
    except (YAMLError, OSError, ValueError) as error:
        raise DataError(f"{path} is not YAML ({' '.join(str(error).split())}); write it again") from None
    return content if isinstance(content, dict) else {}


def _classes(config: Path | None, content: dict[str, Any], folder: Path) -> dict[int, str]:
    names = content.get("names")
    if config is None:
        listed = next(
            (file for name in ("classes.txt", "labels/classes.txt") if (file := folder / name).is_file()), None
        )
        names = [line.strip() for line in read_text(listed).splitlines() if line.strip()] if listed else None
        config = listed or folder
    if isinstance(names, list) and names:
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict) and names and all(whole(key) is not None for key in names):
        return {whole(key) or 0: str(name) for key, name in names.items()}
    raise DataError(f"{config} names no classes ('names' in data.yaml, or classes.txt); list them")


def _images(source: Source, config: Path | None, content: dict[str, Any]) -> Iterator[Path]:
    """Images of the splits, each once."""
    listed = [name for name in SPLITS if content.get(name)]
    wanted = [name for name in listed if source.options.split in (None, name)]
    if source.options.split is not None and not wanted:
        raise DataError(f"{source.path} has no split '{source.options.split}'; it has {', '.join(listed) or 'none'}")
    if len(wanted) > 1:
        source.change(source.path.name, f"splits joined: {', '.join(wanted)}", "give --split to import one of them")
    seen: set[Path] = set()
    places: list[Path] = []
    if config is not None and wanted and not source.finder.given:
        root = Path(os.path.normpath(config.parent / str(content.get("path") or ".").replace("\\", "/")))
        for name in wanted:
            values = content[name] if isinstance(content[name], list) else [content[name]]
            places += [_place(root if root.is_dir() else config.parent, config.parent, str(value)) for value in values]
    else:
        places = [source.finder.folder]
    for place in places:
        files = images_below(place) if place.is_dir() else _listed(source, place)
        for file in files:
            if file not in seen:
                seen.add(file)
                yield file


def _place(root: Path, folder: Path, value: str) -> Path:
    """A folder of images or a text file that lists images, also where `../` leads one folder too high, as Roboflow
    writes it."""
    plain = value.replace("\\", "/")
    tried = [root / plain, folder / plain, folder / plain.removeprefix("../")]
    return Path(os.path.normpath(next((place for place in tried if place.exists()), tried[0])))


def _listed(source: Source, file: Path) -> list[Path]:
    if not file.is_file():
        source.no_file(file.name, "is named by data.yaml and does not exist", 0)
        return []
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    return [path for line in lines if (path := source.image(line, file.parent, 0)) is not None]


def _label_files(folder: Path) -> dict[str, Path]:
    """Text files below a folder by their stem, where no two share it: for images in a folder that a person named."""
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.txt")):
        by_stem.setdefault(file.stem, []).append(file)
    return {stem: same[0] for stem, same in by_stem.items() if len(same) == 1}


def _label_file(image: Path) -> Path | None:
    """The text file in `labels` in place of the last `images` of the path, or beside the image."""
    parts = list(image.parts)
    places = [position for position, part in enumerate(parts[:-1]) if part.lower() == "images"]
    tried = [image.with_suffix(".txt")]
    if places:
        parts[places[-1]] = "labels"
        tried.insert(0, Path(*parts).with_suffix(".txt"))
    return next((path for path in tried if path.is_file()), None)


def _outlines(
    source: Source, place: str, row: list[str], classes: dict[int, str], size: tuple[int, int], pose: bool
) -> Iterator[Outline]:
    if row[0].startswith("#"):
        source.findings.tally("comments in label files", NOTHING_TO_DO, place)
        return
    number, values = whole(row[0]), numbers(row[1:])
    if number is None or values is None:
        source.leave_out(place, "has a line that is not a class and coordinates", "export the labels again")
        return
    if number not in classes:
        source.leave_out(place, f"has class number {number}, which data.yaml does not name", "add it to 'names'")
        return
    category = source.class_name(classes[number], place)
    if category is None:
        return
    width, height = size
    if pose:
        source.leave_out(place, "has key points and a box without an outline", "outline the object")
    elif len(values) in (4, 5) and all(0 <= value <= 1 for value in values):
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        yield Outline(category, (rectangle(x - w / 2, y - h / 2, w, h),), box=True)
    elif len(values) % 2 or len(values) < 6:
        source.leave_out(place, f"has a line of {len(values)} coordinates", "export 3 or more points, x and y of each",
                         "has a line with a wrong number of coordinates")  # fmt: skip
    elif any(abs(value) > _FARTHEST for value in values):
        source.leave_out(
            place, "has coordinates that are no shares of the image", "divide them by its width and height"
        )
    else:
        yield Outline(category, ([v * (width if i % 2 == 0 else height) for i, v in enumerate(values)],))


def _note_label_files_without_image(source: Source, read_files: set[Path]) -> None:
    for folder in {file.parent for file in read_files}:
        for file in sorted(folder.glob("*.txt")):
            if (
                file not in read_files
                and file.name not in ("classes.txt", "labels.txt")
                and not is_image_name(file.name)
            ):
                rows = sum(bool(line.strip()) for line in read_text(file).splitlines())
                source.no_file(file.name, "is a label file without an image", rows)
