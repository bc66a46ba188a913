"""Folders of images that are labelled, and small copies of the images for the browser."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import Literal, get_args

from flows.console.label_file import ImageFacts, LabelFile
from flows.http.errors import HttpError
from flows.inference.image_files import find_images
from flows.workspace.layout import Layout
from samif.dataset.images import ImageFacts as FileFacts
from samif.dataset.images import inspect_image, read_small
from samif.io import files

LABELS = "labels"
"""Folder of a workspace for labels drawn in the console: NAME.json is the COCO file of one folder of images."""
Purpose = Literal["review", "never-name"]
DRAFTS: tuple[Purpose, ...] = get_args(Purpose)
"""Label sets of what is decided in the review: what a session is to learn, and what is never to be named."""
THUMBNAIL_SIDE, PREVIEW_SIDE = 240, 1600
_AT_ONCE = BoundedSemaphore(2)
"""Images that are decoded at once: one of 12 megapixels takes 40 MB."""
_QUALITY = 85


@dataclass(frozen=True)
class LabelSet:
    """A folder of images and the file of their labels; `id` is the file's stem."""

    id: str
    folder: Path
    labels: LabelFile


class LabelSets:
    """The label sets of a workspace: folders that were named, and those that were labelled before.

    Args:
        folders: of images; each has a set of its own.

    Attributes:
        drafts: the sets of the review.
    """

    def __init__(self, layout: Layout, folders: Sequence[Path]) -> None:
        self._cache = layout.state / "console" / "images"
        self._facts: dict[tuple[Path, int, int], FileFacts] = {}
        self._folder_of = {name: (layout.root / LABELS / "images" / name).resolve() for name in DRAFTS}
        found = _sets(layout.root / LABELS, [*folders, *self._folder_of.values()])
        self.all = {each.id: each for each in found}
        self.drafts = {name: next(s for s in found if s.folder == self._folder_of[name]) for name in DRAFTS}

    def find(self, id_: str) -> LabelSet:
        """A set by its id.

        Raises:
            HttpError: 404; there is none.
        """
        if id_ not in self.all:
            raise HttpError(404, "set", "there is no folder of images of that name; choose one that is listed")
        return self.all[id_]

    def listed(self) -> list[LabelSet]:
        """The sets, those of the review only where they hold images."""
        empty = [d for d in self.drafts.values() if not (d.folder.is_dir() and any(d.folder.iterdir()))]
        return [each for each in self.all.values() if each not in empty]

    def names(self, of: LabelSet) -> list[str]:
        """Names of the images of a set, those of sub-folders too.

        Raises:
            DataError: the folder cannot be read, or holds no image.
        """
        return [image.name for image in find_images([of.folder], recursive=True).images]

    def path(self, of: LabelSet, name: str) -> Path:
        """An image file of a set.

        Raises:
            HttpError: 404; the set has no image of that name. Nothing outside the folder has a name.
        """
        path = of.folder / name
        if not (path.is_relative_to(of.folder) and ".." not in Path(name).parts and path.is_file()):
            raise HttpError(404, "image", "there is no image of that name in the folder; read the list again")
        return path

    def facts(self, of: LabelSet, name: str) -> ImageFacts:
        """Size and SHA-256 of an image, read once per state of its file.

        Raises:
            ImageError: it cannot be read.
        """
        path = self.path(of, name)
        state = path.stat()
        key = path, state.st_mtime_ns, state.st_size
        if key not in self._facts:
            with _AT_ONCE:
                self._facts[key] = inspect_image(path)
        width, height = self._facts[key].size
        return ImageFacts(name, width, height, self._facts[key].sha256)

    def small(self, of: LabelSet, name: str, side: int) -> bytes:
        """An image as a JPEG of at most `side` pixels, from the cache where it is there.

        Raises:
            ImageError: it cannot be read.
        """
        path = self.path(of, name)
        state = path.stat()
        key = hashlib.sha256(f"{path}\0{state.st_mtime_ns}\0{state.st_size}\0{side}".encode(errors="surrogateescape"))
        cached = self._cache / key.hexdigest()[:2] / f"{key.hexdigest()}.jpg"
        try:
            return cached.read_bytes()
        except FileNotFoundError:
            pass
        with _AT_ONCE:
            out = io.BytesIO()
            read_small(path, side).save(out, format="JPEG", quality=_QUALITY)
        files.commit(cached, out.getvalue())
        return out.getvalue()


def _sets(labels: Path, folders: Sequence[Path]) -> list[LabelSet]:
    found: dict[str, Path] = {}
    for path in sorted(labels.glob("*.json")):
        try:
            found[path.stem] = Path(json.loads(path.read_bytes())["info"]["images"])
        except (ValueError, KeyError, TypeError):
            continue  # not written by the console
    for folder in folders:
        known = folder.resolve()
        if known not in found.values():
            found[_fresh(known.name, found, labels)] = known
    return [LabelSet(id_, folder, LabelFile(labels / f"{id_}.json", folder)) for id_, folder in found.items()]


def _fresh(name: str, taken: dict[str, Path], labels: Path) -> str:
    """An id like the folder's name, of plain characters, that no set has."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "images"
    numbered = [plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3))]
    return next(id_ for id_ in numbered if id_ not in taken and not (labels / f"{id_}.json").exists())
