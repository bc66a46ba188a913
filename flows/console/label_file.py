"""The labels of one folder: a COCO file in which every image has a revision number, so that nobody overwrites another.

Images that are in the file have been labelled, with objects or without any; the others have not. Masks are compressed
RLE, exact to the pixel. The file is read again for every change, under a lock, and replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from flows.runtime.locks import held
from samif.dataset.segmentation import BadSegmentation, read_mask
from samif.errors import DataError, IntegrityError, SystemRefused
from samif.io import files
from samif.masks.rle import Rle, areas, boxes

LOCK_SECONDS = 10.0
Labelled = Literal["keep", "replace", "join"]


class Conflict(Exception):
    """Somebody saved the image since it was read; `saved` is what they saved."""

    def __init__(self, saved: SavedImage) -> None:
        super().__init__(f"revision {saved.revision} was saved by {saved.by}")
        self.saved = saved


@dataclass(frozen=True)
class LabelledObject:
    """An object with its class; `id` is that of the COCO file, none before it is saved."""

    name: str
    rle: Rle
    id: int | None = None


@dataclass(frozen=True)
class ImageFacts:
    """What the COCO file says of an image beside its labels."""

    name: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class SavedImage:
    """The labels of an image; revision 0 where it was never saved. `by` saved it `at` that time (ISO 8601)."""

    revision: int = 0
    objects: tuple[LabelledObject, ...] = ()
    by: str = ""
    at: str = ""


class LabelFile:
    """The COCO file of the labels of the images in `folder`."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self._read: tuple[tuple[int, int, int], dict[str, Any]] | None = None

    def image(self, name: str) -> SavedImage:
        """The labels of an image."""
        content = self._content()
        record = _record(content, name)
        return SavedImage() if record is None else _saved(content, record)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Revision and number of objects of every image that was labelled, by name."""
        content = self._content()
        objects = dict.fromkeys((r["id"] for r in content["images"]), 0)
        for annotation in content["annotations"]:
            objects[annotation["image_id"]] += 1
        return {r["file_name"]: (r.get("revision", 1), objects[r["id"]]) for r in content["images"]}

    def classes(self) -> dict[str, int]:
        """Objects by class."""
        content = self._content()
        names = {c["id"]: c["name"] for c in content["categories"]}
        counts = dict.fromkeys(names.values(), 0)
        for annotation in content["annotations"]:
            counts[names[annotation["category_id"]]] += 1
        return counts

    def save(self, image: ImageFacts, revision: int, objects: Sequence[LabelledObject], who: str) -> SavedImage:
        """Replace the labels of an image by `objects`, whole or not at all.

        Args:
            revision: of the labels that the person started from.

        Raises:
            Conflict: the image has another revision now.
            DataError: a mask is not one of this image.
            SystemRefused: another process holds the file for too long.
        """
        masks = [_checked(labelled, image, number) for number, labelled in enumerate(objects, start=1)]
        with self.locked():
            content = self._copy()
            record = _record(content, image.name)
            saved = SavedImage() if record is None else _saved(content, record)
            if saved.revision != revision:
                raise Conflict(saved)
            record = _replace(content, image, revision, objects, masks, who)
            self._commit(content)
            return _saved(content, record)

    def add(
        self, images: Sequence[tuple[ImageFacts, Sequence[LabelledObject]]], who: str, labelled: Labelled
    ) -> list[str]:
        """Labels of several images at once, whole or not at all.

        Args:
            labelled: what becomes of images that are labelled: they keep their labels, these take their place, or both
                stay.

        Returns:
            Names of the images that kept their labels.

        Raises:
            DataError: a mask is not one of its image.
            SystemRefused: another process holds the file for too long.
        """
        masks = [[_checked(o, image, n) for n, o in enumerate(objects, start=1)] for image, objects in images]
        kept = []
        with self.locked():
            content = self._copy()
            for (image, objects), rles in zip(images, masks, strict=True):
                record = _record(content, image.name)
                saved = SavedImage() if record is None else _saved(content, record)
                if record is not None and labelled == "keep":
                    kept.append(image.name)
                    continue
                if labelled == "join":
                    objects = [*saved.objects, *objects]
                    rles = [*(o.rle for o in saved.objects), *rles]
                _replace(content, image, saved.revision, objects, rles, who)
            self._commit(content)
        return kept

    def drop(self, classes: Collection[str]) -> list[str]:
        """Delete the objects of these classes, and the images that have no other. Call within `locked`.

        Returns:
            Names of the images that the file does not list any more.
        """
        content = self._copy()
        gone = {c["id"] for c in content["categories"] if c["name"] in classes}
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] not in gone]
        content["categories"] = [c for c in content["categories"] if c["id"] not in gone]
        left = {a["image_id"] for a in content["annotations"]}
        names = [r["file_name"] for r in content["images"] if r["id"] not in left]
        content["images"] = [r for r in content["images"] if r["id"] in left]
        self._commit(content)
        return names

    def _copy(self) -> dict[str, Any]:
        """The content to be changed: what was read stays as it is, should the change fail."""
        copied: dict[str, Any] = json.loads(json.dumps(self._content()))
        return copied

    def _commit(self, content: dict[str, Any]) -> None:
        files.commit(self.path, json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())

    def _content(self) -> dict[str, Any]:
        try:
            facts = self.path.stat()
            key = facts.st_ino, facts.st_mtime_ns, facts.st_size
            if self._read is None or self._read[0] != key:
                self._read = key, _parsed(self.path)
            return self._read[1]
        except FileNotFoundError:
            return {"info": {"images": str(self.folder)}, "images": [], "annotations": [], "categories": []}

    def locked(self) -> AbstractContextManager[None]:
        """Keep others from writing the file.

        Raises:
            SystemRefused: another process holds it for too long.
        """
        busy = SystemRefused(f"another process holds {self.path} for long; save again when it has ended")
        return held(self.path.with_suffix(".lock"), busy, LOCK_SECONDS)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        known = {record["id"] for record in content["images"]}
        classes = {category["id"] for category in content["categories"]}
        if all(a["image_id"] in known and a["category_id"] in classes for a in content["annotations"]):
            parsed: dict[str, Any] = content
            return parsed
    except (ValueError, KeyError, TypeError):
        pass
    raise IntegrityError(f"{path} is damaged; restore it from a backup, or move it away to start anew")


def _record(content: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((r for r in content["images"] if r["file_name"] == name), None)


def _replace(
    content: dict[str, Any],
    image: ImageFacts,
    revision: int,
    objects: Sequence[LabelledObject],
    masks: Sequence[Rle],
    who: str,
) -> dict[str, Any]:
    """Put `objects` with their masks in the place of an image's labels; its record."""
    record = _record(content, image.name)
    if record is None:
        record = {"id": 1 + max((r["id"] for r in content["images"]), default=0)}
        content["images"].append(record)
    record |= {
        "file_name": image.name, "width": image.width, "height": image.height, "sha256": image.sha256,
        "revision": revision + 1, "labelled_by": who, "labelled_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    own = {a["id"] for a in content["annotations"] if a["image_id"] == record["id"]}
    fresh = 1 + max((a["id"] for a in content["annotations"]), default=0)
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != record["id"]]
    for labelled, mask in zip(objects, masks, strict=True):
        id_ = labelled.id if labelled.id in own else fresh
        own.discard(id_)
        fresh += id_ == fresh
        annotation = {
            "id": id_, "image_id": record["id"], "category_id": _category(content, labelled.name),
            "segmentation": mask, "bbox": boxes([mask])[0].tolist(), "area": float(areas([mask])[0]), "iscrowd": 0,
        }  # fmt: skip
        content["annotations"].append(annotation)
    return record


def _saved(content: dict[str, Any], record: dict[str, Any]) -> SavedImage:
    names = {c["id"]: c["name"] for c in content["categories"]}
    objects = tuple(
        LabelledObject(names[a["category_id"]], a["segmentation"], a["id"])
        for a in content["annotations"]
        if a["image_id"] == record["id"]
    )
    return SavedImage(
        record.get("revision", 1), objects, record.get("labelled_by", ""), record.get("labelled_at", "")
    )  # fmt: skip


def _checked(labelled: LabelledObject, image: ImageFacts, number: int) -> Rle:
    try:
        return read_mask(labelled.rle, image.width, image.height).rle
    except BadSegmentation as error:
        raise DataError(f"object {number} of {image.name} {error.what}; {error.remedy}") from None


def _category(content: dict[str, Any], name: str) -> int:
    for category in content["categories"]:
        if category["name"] == name:
            id_: int = category["id"]
            return id_
    new = 1 + max((category["id"] for category in content["categories"]), default=0)
    content["categories"].append({"id": new, "name": name})
    return new
