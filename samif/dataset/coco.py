"""COCO instance files: every record is checked. The data classes are in `model`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, TypeGuard

from pycocotools import mask as coco_mask

from samif.dataset.check import Finding, oddities
from samif.dataset.images import MAX_PIXELS, ImageError, ImageFacts, inspect_image
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.dataset.segmentation import BadSegmentation, is_number, to_rle
from samif.errors import DataError, ObjectMissing

__all__ = ["Annotation", "Category", "Dataset", "ImageRecord", "load_json", "read_coco"]

Progress = Callable[[int, int], None]
_Sizes = dict[int, tuple[int, int] | None]

_KEYS = ("images", "annotations", "categories")
_THREADS = 8


def read_coco(images: Path, annotations: Path, progress: Progress | None = None) -> tuple[Dataset, list[Finding]]:
    """Read a COCO instance file, open every image that it names, and check both.

    Args:
        images: folder that `file_name` is relative to.
        annotations: COCO JSON with `images`, `annotations`, `categories`.
        progress: called with (images opened, images in all).

    Returns:
        The data set and what was found, errors in file order before warnings. The data set holds all that it
        can hold: an image that cannot be read keeps its labels and has sha256 "", a size that differs from the
        file's stays as declared. Only records without a usable id, file name, class or mask are absent, each with
        an error. The caller decides (`check.raise_on_errors`).

    Raises:
        DataError: there is no such folder or file, or the file is no COCO instance file at all.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; name the folder that holds the images")
    raw = load_json(annotations)
    reader = _Reader(images.resolve(), annotations.name)
    categories = reader.categories(raw["categories"])
    entries = reader.entries(raw["images"])
    facts = reader.inspect(entries, progress)
    sizes = {entry.id: reader.size_of(entry, facts.get(entry.id)) for entry in entries}
    labels = reader.annotations(raw["annotations"], categories, {e.id: e.file_name for e in entries}, sizes)
    records = []
    for entry in entries:
        width, height = sizes[entry.id] or (0, 0)
        sha256 = facts[entry.id].sha256 if entry.id in facts else ""
        records.append(ImageRecord(entry.id, entry.file_name, width, height, sha256, tuple(labels[entry.id])))
    of_name: dict[str, Category] = {}
    for id_, name in categories.items():
        of_name.setdefault(name, Category(id_, name))
    dataset = Dataset(images, tuple(of_name.values()), tuple(records))
    return dataset, [*reader.found, *oddities(dataset, annotations.name)]


def load_json(path: Path) -> dict[str, list[Any]]:
    """The content of a COCO file, whose lists are there but whose records are not checked.

    Raises:
        DataError: the file is missing, not JSON, or lacks one of the lists.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ObjectMissing(f"{path} does not exist; name the COCO annotation file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name the COCO annotation file") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); export the annotations again as COCO") from None
    if not isinstance(raw, dict):
        raise DataError(f"{path} holds a {type(raw).__name__}, not a COCO object; export the annotations as COCO")
    for key in _KEYS:
        if not isinstance(raw.get(key), list):
            raise DataError(
                f"{path} has no list '{key}', a COCO file has {', '.join(_KEYS)}; export the annotations as COCO"
            )
    return raw


@dataclass(frozen=True)
class _Entry:
    """One record of `images` with a usable id and file name; `declared` is its width and height, unchecked;
    `inside` is whether the path stays in the image folder."""

    id: int
    file_name: str
    declared: tuple[object, object]
    inside: bool


class _Reader:
    """One pass over the records of a COCO file that collects findings."""

    def __init__(self, root: Path, file: str) -> None:
        self.root = root
        self.file = file
        self.found: list[Finding] = []

    def _add(
        self,
        what: str,
        remedy: str,
        file: str | None = None,
        image: int | None = None,
        annotation: int | None = None,
        level: Literal["error", "warning"] = "error",
        broken: bool = False,
    ) -> None:
        self.found.append(Finding(level, file or self.file, image, annotation, what, remedy, broken))

    def categories(self, records: list[Any]) -> dict[int, str]:
        """Class name of every usable category id."""
        names: dict[int, str] = {}
        if not records:
            self._add("names no class ('categories' is empty)", "export the annotations with their classes")
        for position, record in enumerate(records):
            id_, name = _get(record, "id"), _get(record, "name")
            if not _is_id(id_) or not _is_text(name):
                self._add(
                    f"category record {position} needs an integer id and a name, has {id_!r:.60} and {name!r:.60}",
                    "give it both",
                )
            elif id_ in names:
                self._add(f"category id {id_} is given twice ('{names[id_]}', '{name}')", "number them apart")
            else:
                if name in names.values():
                    self._add(f"class '{name}' is listed twice", "keep one category of that name, or rename one")
                names[id_] = name
        return names

    def entries(self, records: list[Any]) -> list[_Entry]:
        """Records of images with an id of their own and a file name inside the folder."""
        entries: dict[int, _Entry] = {}
        owner: dict[str, int] = {}
        if not records:
            self._add("names no image ('images' is empty)", "export at least one labelled image")
        for position, record in enumerate(records):
            id_, name = _get(record, "id"), _get(record, "file_name")
            if not _is_id(id_) or not _is_text(name):
                self._add(
                    f"image record {position} needs an integer id and a file_name, has {id_!r:.60} and {name!r:.60}",
                    "give it both",
                )
                continue
            if id_ in entries:
                self._add(f"shares its image id with {entries[id_].file_name}", "number the images apart", name, id_)
                continue
            inside = self._inside(name)
            if inside is None:
                self._add(
                    "leads out of the image folder",
                    "copy the image into the folder and give its name relative to it",
                    name,
                    id_,
                )
            else:
                name = inside
                if name in owner:
                    self._add(
                        f"is listed twice, also as image {owner[name]}", "join the two records into one", name, id_
                    )
                owner[name] = id_
            entries[id_] = _Entry(id_, name, (_get(record, "width"), _get(record, "height")), inside is not None)
        return list(entries.values())

    def _inside(self, name: str) -> str | None:
        """Normal form of a file name relative to the root, None if it (or a link that it names) leads out."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or PureWindowsPath(name).drive or ".." in pure.parts or pure == PurePosixPath("."):
            return None
        try:
            return pure.as_posix() if (self.root / pure).resolve().is_relative_to(self.root) else None
        except (OSError, RuntimeError):  # a link to itself, a name longer than the file system allows
            return None

    def inspect(self, entries: list[_Entry], progress: Progress | None) -> dict[int, ImageFacts]:
        """Facts of every image that can be decoded, by image id."""
        facts: dict[int, ImageFacts] = {}
        problems: dict[int, ImageError] = {}
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            jobs = {pool.submit(inspect_image, self.root / e.file_name): e for e in entries if e.inside}
            for done, job in enumerate(as_completed(jobs), start=1):
                try:
                    facts[jobs[job].id] = job.result()
                except ImageError as error:
                    problems[jobs[job].id] = error
                if progress is not None:
                    progress(done, len(jobs))
        for entry in entries:
            if entry.id in problems:
                problem = problems[entry.id]
                self._add(problem.what, problem.remedy, entry.file_name, entry.id, broken=True)
        return facts

    def size_of(self, entry: _Entry, facts: ImageFacts | None) -> tuple[int, int] | None:
        """(width, height) that the labels refer to: the declared one if it is a size, else the file's."""
        width, height = entry.declared
        if not _is_length(width) or not _is_length(height) or width * height > MAX_PIXELS:
            self._add(
                f"has width {width!r:.60} and height {height!r:.60}",
                f"give both in pixels, as whole numbers of at most {MAX_PIXELS:,} pixels together",
                entry.file_name,
                entry.id,
            )
            return facts.size if facts else None
        declared = (width, height)
        if facts and declared != facts.size:
            if declared == facts.stored_size:
                self._add(
                    f"is {_by(facts.size)} once its EXIF orientation turns it upright, but is declared {_by(declared)}",
                    "label the upright image, or take the orientation tag out of the file",
                    entry.file_name,
                    entry.id,
                )
            else:
                self._add(
                    f"is {_by(facts.size)}, but is declared {_by(declared)}",
                    "export the annotations for this very file; its labels may not fit",
                    entry.file_name,
                    entry.id,
                )
        return declared

    def annotations(
        self, records: list[Any], categories: dict[int, str], names: dict[int, str], sizes: _Sizes
    ) -> dict[int, list[Annotation]]:
        """Usable annotations by image id."""
        labels: dict[int, list[Annotation]] = {id_: [] for id_ in names}
        seen: set[int] = set()
        for position, record in enumerate(records):
            id_, image, category = (_get(record, key) for key in ("id", "image_id", "category_id"))
            crowd = _get(record, "iscrowd", 0)
            if not _is_id(id_):
                self._add(f"annotation record {position} needs an integer id, has {id_!r:.60}", "number it")
                continue
            if not _is_id(image) or image not in names:
                self._add(
                    f"names image_id {image!r:.60}, which is not in 'images'",
                    "add the image or delete the annotation",
                    annotation=id_,
                )
                continue
            place = (names[image], image, id_)
            if id_ in seen:
                self._add("shares its annotation id with another", "number the annotations apart", *place)
            seen.add(id_)
            if not _is_id(category) or category not in categories:
                self._add(
                    f"names category_id {category!r:.60}, which is not in 'categories'",
                    "add the class or correct the id",
                    *place,
                )
                continue
            if crowd not in (0, 1):
                self._add(f"has iscrowd {crowd!r:.60}", "set it to 0, or to 1 for a region of many objects", *place)
                continue
            self._check_measures(record, place)
            size = sizes[image]
            if size is None:  # an error of the image already
                continue
            try:
                rle = to_rle(record.get("segmentation"), *size)
            except BadSegmentation as problem:
                self._add(problem.what, problem.remedy, *place)
                continue
            x, y, width, height = coco_mask.toBbox(rle).tolist()
            area = float(coco_mask.area(rle))
            labels[image].append(Annotation(id_, categories[category], rle, bool(crowd), (x, y, width, height), area))
        return labels

    def _check_measures(self, record: dict[str, Any], place: tuple[str, int, int]) -> None:
        """`bbox` and `area` are measured from the mask again; invalid values are still a sign of a broken export."""
        area, bbox = record.get("area", 0), record.get("bbox", [0, 0, 0, 0])
        odd = [] if is_number(area) and area >= 0 else [f"area {area!r:.60}"]
        if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(is_number, bbox)) and min(bbox[2:]) >= 0):
            odd.append(f"bbox {bbox!r:.60}")
        if odd:
            self._add(
                f"has {' and '.join(odd)}; both are measured from the mask instead",
                "check the program that exported it",
                *place,
                level="warning",
            )


def _get(record: object, key: str, default: object = None) -> Any:
    """A value of a record that may not even be an object."""
    return record.get(key, default) if isinstance(record, dict) else None


def _is_id(value: object) -> TypeGuard[int]:
    """A whole number that any table can hold; JSON's true and 1.0 are none."""
    return type(value) is int and 0 <= value < 2**63


def _is_length(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _is_text(value: object) -> TypeGuard[str]:
    """A name that can be written, shown on one line and passed to the file system."""
    if not isinstance(value, str) or not value.strip() or any(ord(character) < 32 for character in value):
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
