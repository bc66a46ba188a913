"""From COCO2014's published files to the two parts of the protocol: a COCO file to learn from and one to test on.

    ROOT/train2014/  ROOT/val2014/  ROOT/annotations/instances_{train,val}2014.json

File names in the parts are relative to ROOT: no image is copied. One of the two large files is in memory at a time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from samif.dataset.coco import load_json
from samif.dataset.coco2014 import CATEGORIES, MASKLESS, Counts
from samif.dataset.segmentation import BadSegmentation, to_rle
from samif.errors import DataError
from samif.io import files

SPLITS = ("train2014", "val2014")
_IDS_IN = ("instances_minival2014.json", "instances_val2017.json")
_LABEL = ("id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd")
_WHOLE = ("id", "width", "height")

_Record = dict[str, Any]


@dataclass
class Part:
    """What one part holds; `objects` counts by class, crowd regions left out."""

    images: int = 0
    labels: int = 0
    objects: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class LeftOut:
    """A label that no mask can stand for, and why: an outline around no pixel. The published files have some."""

    part: Literal["train", "val"]
    annotation: int
    file_name: str
    why: str


@dataclass(frozen=True)
class Parts:
    """The two parts as written.

    Attributes:
        test_ids_from: the file that names the test images.
        absent: listed images that the folders lack; above 0 only for a part of COCO2014.
    """

    train: Part
    test: Part
    test_ids_from: Path
    absent: int
    left_out: tuple[LeftOut, ...]


def write_parts(root: Path, test_ids: Path | None, folder: Path, expected: Counts | None) -> Parts:
    """Write `folder`/train.json and `folder`/val.json, whole or not at all.

    Args:
        root: ROOT of the layout above.
        test_ids: ids of the test images, one a line or a JSON list; None takes them from
            ROOT/annotations/instances_minival2014.json or instances_val2017.json.
        folder: exists.
        expected: counts that must hold; None takes any part of COCO2014, and of the listed images those at hand.

    Raises:
        DataError: a file is missing or not COCO2014's, a count differs (what, expected, got), an image is missing, or
            a test image is one of train2014.
    """
    ids, ids_from = _test_ids(root, test_ids)
    if expected is not None:
        _hold("test images", ids_from, len(ids), expected.test_images)
    absent = 0
    left_out: list[LeftOut] = []
    with _Writer(folder / "train.json") as train, _Writer(folder / "val.json") as test:
        for split in SPLITS:
            source = root / "annotations" / f"instances_{split}.json"
            images, labels = _read(source, expected, split)
            _check_ids(ids, ids_from, source, images, split, expected)
            gone = _gone(root, split, images, expected)
            absent += len(gone)
            for id_, image in images.items():
                if id_ not in gone:
                    (test if id_ in ids else train).images.append(
                        {**image, "file_name": f"{split}/{image['file_name']}"}
                    )
            for label in labels:
                image_id = label["image_id"]
                if image_id in gone:
                    continue
                why = _why_no_mask(label, images[image_id])
                if why is None:
                    (test if image_id in ids else train).label(label)
                else:
                    part: Literal["train", "val"] = "val" if image_id in ids else "train"
                    left_out.append(LeftOut(part, label["id"], f"{split}/{images[image_id]['file_name']}", why))
        _check_totals(root, ids_from, train, test, left_out, expected)
    return Parts(train.part, test.part, ids_from, absent, tuple(left_out))


class _Writer:
    """A COCO file written label by label, images last; it appears when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self.part = Part()
        self.images: list[_Record] = []
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Self:
        self._file = self._temporary.open("w", encoding="utf-8")
        self._file.write('{"annotations":[')
        return self

    def label(self, label: _Record) -> None:
        kept = {key: label[key] for key in _LABEL if key in label}
        self._file.write((",\n" if self.part.labels else "\n") + json.dumps(kept, separators=(",", ":")))
        self.part.labels += 1
        if not label.get("iscrowd"):
            self.part.objects[CATEGORIES[label["category_id"]]] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.part.images = len(self.images)
        with self._file as file:
            if kind is None:
                categories = [{"id": id_, "name": name} for id_, name in CATEGORIES.items()]
                rest = json.dumps({"images": self.images, "categories": categories}, separators=(",", ":"))
                file.write("],\n" + rest.removeprefix("{"))
        if kind is None:
            files.publish(self._temporary, self._path)
        self._temporary.unlink(missing_ok=True)


def _read(source: Path, expected: Counts | None, split: str) -> tuple[dict[int, _Record], list[_Record]]:
    """Images by id, and labels, of one of the two published files; classes, counts and references are checked."""
    content = load_json(source)
    try:
        _check_categories(source, {category["id"]: category["name"] for category in content["categories"]})
        images, labels = {image["id"]: image for image in content["images"]}, content["annotations"]
        for image in content["images"]:
            if not isinstance(image["file_name"], str) or any(type(image[key]) is not int for key in _WHOLE):
                raise DataError(
                    f"{source}: image {image['id']!r:.60} needs a file name and whole numbers as id, width, height; "
                    "download it again"
                )
        for label in labels:
            if label["image_id"] not in images or label["category_id"] not in CATEGORIES:
                what = "class" if label["image_id"] in images else "image"
                raise DataError(f"{source}, annotation {label['id']}: its {what} is not in the file; download it again")
        if len({label["id"] for label in labels}) != len(labels):
            raise DataError(f"{source} has two annotations of one id; download it again")
    except (KeyError, TypeError) as error:
        raise DataError(f"{source} has a record that is not COCO's ({error!r}); download it again") from None
    if expected is not None:
        _hold("images", source, len(images), expected.images[split])
        _hold("labels", source, len(labels), expected.labels[split])
    return {id_: {key: image[key] for key in ("file_name", *_WHOLE)} for id_, image in images.items()}, labels


def _check_categories(source: Path, categories: Mapping[int, str]) -> None:
    for id_ in sorted({*categories, *CATEGORIES}):
        if categories.get(id_) != CATEGORIES.get(id_):
            raise DataError(
                f"{source} has category {id_} as {categories.get(id_)!r}, COCO2014 has {CATEGORIES.get(id_)!r}; "
                "give COCO2014's own file, or make a workspace of other data with 'samif init'"
            )


def _check_ids(
    ids: frozenset[int], ids_from: Path, source: Path, images: dict[int, _Record], split: str, expected: Counts | None
) -> None:
    """Test images are images of val2014, all of them where the data are complete."""
    if split == "train2014" and ids & images.keys():
        raise DataError(f"{ids_from} names image {min(ids & images.keys())}, one of {source}; name images of val2014")
    if split == "val2014" and expected is not None and ids - images.keys():
        raise DataError(f"{ids_from} names image {min(ids - images.keys())}, which {source} lacks; correct the ids")


def _gone(root: Path, split: str, images: dict[int, _Record], expected: Counts | None) -> set[int]:
    """Ids of the listed images that are not in their folder."""
    folder = root / split
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; unpack {split}.zip there")
    if not folder.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{folder} is a link that leads out of {root}; move or mount the images there instead")
    there = set(os.listdir(folder))
    gone = {id_ for id_, image in images.items() if image["file_name"] not in there}
    if gone and expected is not None:
        first = images[min(gone)]["file_name"]
        raise DataError(
            f"{folder} lacks {len(gone):,} of {len(images):,} images, {first} for one; unpack {split}.zip there again"
        )
    return gone


def _check_totals(
    root: Path, ids_from: Path, train: _Writer, test: _Writer, left_out: list[LeftOut], expected: Counts | None
) -> None:
    """Both parts hold images; complete data hold as many images, labels and masks as published."""
    for name, writer in (("training", train), ("test", test)):
        if not writer.images:
            raise DataError(f"{root} has no image for the {name} part; copy some there, with their labels")
    if expected is None:
        return
    lost = Counter(label.part for label in left_out)
    _hold("training images", root, len(train.images), expected.train_images)
    _hold("labels on training images", root, train.part.labels + lost["train"], expected.train_labels)
    _hold("labels on test images", ids_from, test.part.labels + lost["val"], expected.test_labels)
    if lost["train"] > MASKLESS * expected.train_labels or lost["val"] > MASKLESS * expected.test_labels:
        first = left_out[0]
        raise DataError(
            f"{root}: {len(left_out):,} labels are no masks, more than COCO2014 has; annotation {first.annotation} of "
            f"{first.file_name} {first.why}; download the annotations again"
        )


def _why_no_mask(label: _Record, image: _Record) -> str | None:
    try:
        to_rle(label.get("segmentation"), image["width"], image["height"])
    except BadSegmentation as problem:
        return problem.what
    return None


def _test_ids(root: Path, given: Path | None) -> tuple[frozenset[int], Path]:
    """Ids of the test images, and the file that names them."""
    if given is not None:
        return _listed_ids(given), given
    folder = root / "annotations"
    for name in _IDS_IN:
        if (folder / name).exists():
            ids = [image.get("id") for image in load_json(folder / name)["images"] if isinstance(image, dict)]
            return _whole(ids, folder / name), folder / name
    raise DataError(
        f"neither {' nor '.join(_IDS_IN)} is in {folder}, so nothing says which images of val2014 are for testing; "
        "copy one there, or give their ids with '--val-ids FILE'"
    )


def _listed_ids(path: Path) -> frozenset[int]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        ids = json.loads(text) if text.lstrip().startswith("[") else [int(line) for line in text.split()]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a file of image ids") from None
    except ValueError as error:
        raise DataError(f"{path} is no list of image ids ({error}); write one id a line, or a JSON list") from None
    return _whole(ids, path)


def _whole(ids: list[Any], path: Path) -> frozenset[int]:
    odd = [id_ for id_ in ids if type(id_) is not int]
    if odd or not ids:
        raise DataError(
            f"{path} names {odd[0]!r:.60} as an image; give whole numbers"
            if odd
            else f"{path} names no image; give ids of val2014"
        )
    return frozenset(ids)


def _hold(what: str, place: Path, got: int, expected: int) -> None:
    if got != expected:
        raise DataError(
            f"{place}: {got:,} {what}, COCO2014 has {expected:,}; download it again, "
            "or take a part of COCO2014 with '--partial', which is not the published protocol"
        )
