"""The labels of one folder: a COCO file in which every image has a revision number, so that nobody overwrites another.

Images that are in the file have been labelled, with objects or without any; the others have not. Masks are compressed
RLE, exact to the pixel. The file is read again for every change, under a lock, and replaced as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from samif.dataset.segmentation import BadSegmentation, read_mask
from samif.errors import DataError, IntegrityError, SystemRefused
from samif.io import files
from samif.masks.rle import Rle, areas, boxes

LOCK_SECONDS = 10.0


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
        record = next((r for r in content["images"] if r["file_name"] == name), None)
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
        with self._locked():
            content = self._content()
            record = next((r for r in content["images"] if r["file_name"] == image.name), None)
            saved = SavedImage() if record is None else _saved(content, record)
            if saved.revision != revision:
                raise Conflict(saved)
            content = json.loads(json.dumps(content))  # the one that was read stays as it is, should this fail
            if record is None:
                record = {"id": 1 + max((r["id"] for r in content["images"]), default=0)}
                content["images"].append(record)
            else:
                record = next(r for r in content["images"] if r["id"] == record["id"])
            record |= {
                "file_name": image.name, "width": image.width, "height": image.height, "sha256": image.sha256,
                "revision": revision + 1, "labelled_by": who,
                "labelled_at": datetime.now(UTC).isoformat(timespec="seconds"),
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
                    "segmentation": mask, "bbox": boxes([mask])[0].tolist(), "area": float(areas([mask])[0]),
                    "iscrowd": 0,
                }  # fmt: skip
                content["annotations"].append(annotation)
            files.commit(self.path, json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())
            return _saved(content, record)

    def _content(self) -> dict[str, Any]:
        try:
            facts = self.path.stat()
            key = facts.st_ino, facts.st_mtime_ns, facts.st_size
            if self._read is None or self._read[0] != key:
                self._read = key, _parsed(self.path)
            return self._read[1]
        except FileNotFoundError:
            return {"info": {"images": str(self.folder)}, "images": [], "annotations": [], "categories": []}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path.with_suffix(".lock"), timeout=LOCK_SECONDS):
                yield
        except Timeout:
            raise SystemRefused(f"another process holds {self.path} for long; save again when it has ended") from None


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
