"""Ids of images and classes in COCO results: those of a COCO instance file, by file name and class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from samif.dataset.coco_json import load_json
from samif.dataset.values import get, text_of, whole

Id = int | float | str
"""As the file writes it: COCO tools compare ids without converting them."""


@dataclass(frozen=True)
class ImageEntry:
    """An image of a COCO file: its id, and width and height in pixels where the file gives them."""

    id: Id
    size: tuple[int, int] | None


@dataclass(frozen=True)
class CocoIds:
    """What a COCO file calls its images and classes.

    Attributes:
        by_path: images by file name with folders.
        by_name: images by file name without folders; None where several images share it.
        classes: category ids by class name.
    """

    path: Path
    by_path: Mapping[str, ImageEntry]
    by_name: Mapping[str, ImageEntry | None]
    classes: Mapping[str, Id]

    def lists(self, name: str) -> bool:
        """Whether there is an image of exactly this file name with its folders."""
        return _plain(name) in self.by_path

    def image(self, name: str) -> ImageEntry | None:
        """The image of a file name, which may have folders in front that the COCO file does not have, or lack them."""
        plain = _plain(name)
        return self.by_path.get(plain) or self.by_name.get(PurePosixPath(plain).name)


@dataclass(frozen=True)
class ResultIds:
    """Ids for the results of some images, in their order.

    Attributes:
        images: an id per image; one that `file` does not list has a number that no image of `file` has.
        listed: for each image whether `file` lists it; all true where there is no file.
        classes: category ids by class name; classes that `file` does not list have numbers of their own.
        file: the COCO file whose ids they are; None where images are numbered from 1.
        notes: what could not be taken from the file, one sentence each.
    """

    images: tuple[Id, ...]
    listed: tuple[bool, ...]
    classes: dict[str, Id]
    file: Path | None
    notes: tuple[str, ...] = field(default=())


def read_ids(path: Path) -> CocoIds:
    """Ids in a COCO instance file; records without a usable id or name are passed over.

    Raises:
        SamifError: the file does not exist or is no COCO instance file.
    """
    content = load_json(path)
    by_path: dict[str, ImageEntry] = {}
    by_name: dict[str, ImageEntry | None] = {}
    for record in content["images"]:
        id_, name = get(record, "id"), get(record, "file_name")
        if not _usable(id_) or not isinstance(name, str):
            continue
        width, height = whole(get(record, "width")), whole(get(record, "height"))
        entry = ImageEntry(id_, (width, height) if width is not None and height is not None else None)
        plain = _plain(name)
        by_path.setdefault(plain, entry)
        base = PurePosixPath(plain).name
        by_name[base] = entry if base not in by_name else None
    classes: dict[str, Id] = {}
    for record in content["categories"]:
        known = text_of(get(record, "name"))
        if known is not None and _usable(get(record, "id")):
            classes.setdefault(known, get(record, "id"))
    return CocoIds(path, by_path, by_name, classes)


def ids_of_file(coco: CocoIds, names: Sequence[str], sizes: Sequence[tuple[int, int]], classes: Sequence[str],
                unknown: str) -> ResultIds:  # fmt: skip
    """Ids of a COCO file for images (file names, upright width and height in pixels) and classes.

    Args:
        unknown: the class that no file lists, about which there is no note.
    """
    found = [coco.image(name) for name in names]
    fresh = _after(entry.id for entry in coco.by_path.values())
    images = [next(fresh) if entry is None else entry.id for entry in found]
    notes = []
    if absent := [name for name, entry in zip(names, found, strict=True) if entry is None]:
        notes.append(
            f"{len(absent)} of {len(names)} images are not in {coco.path} ({shortened(absent)}): their results are in "
            "instances.json only, with new ids"
        )
    if other := [
        f"{name}: {entry.size[0]} x {entry.size[1]} there, {size[0]} x {size[1]} upright"
        for name, entry, size in zip(names, found, sizes, strict=True)
        if entry is not None and entry.size not in (None, size) and entry.size is not None
    ]:
        notes.append(
            f"{len(other)} of {len(names)} images have another size in {coco.path} ({shortened(other)}): the masks do "
            "not fit its labels"
        )
    numbers, more = category_ids(classes, unknown, coco)
    return ResultIds(tuple(images), tuple(entry is not None for entry in found), numbers, coco.path, (*notes, *more))


def category_ids(classes: Sequence[str], unknown: str, coco: CocoIds | None) -> tuple[dict[str, Id], tuple[str, ...]]:
    """Category ids by class name: those of a COCO file, and numbers of their own for other classes, with a note."""
    if coco is None:
        return {name: number for number, name in enumerate(classes, start=1)}, ()
    fresh = _after(coco.classes.values())
    known = {name: coco.classes.get(text_of(name) or name) for name in classes}
    ids = {name: next(fresh) if id_ is None else id_ for name, id_ in known.items()}
    new = [f"'{name}' is {ids[name]}" for name, id_ in known.items() if id_ is None and name != unknown]
    if not new:
        return ids, ()
    return ids, (f"{coco.path} does not list {len(new)} of the classes, which have new category ids: {shortened(new)}",)


def shortened(texts: Sequence[str], most: int = 5) -> str:
    """The first of some texts, and how many more there are."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def _usable(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _after(ids: Any) -> Any:
    """Whole numbers above all of `ids`."""
    number = max((found for id_ in ids if (found := whole(id_)) is not None), default=0)
    number = max(number, 0)
    while True:
        number += 1
        yield number


def _plain(name: str) -> str:
    """A file name with forward slashes and without `./`, in Unicode's composed form (macOS writes the other)."""
    return PurePosixPath(text_of(name.replace("\\", "/")) or name).as_posix()
