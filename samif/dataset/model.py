"""A checked data set in memory and on disk. Masks are compressed COCO RLE in the upright frame of their image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from samif.dataset.index_file import ImageFile, Rows, write_index
from samif.dataset.records import Annotation, Category, ImageRecord
from samif.errors import DataError
from samif.io.spill import sorted_on_disk

__all__ = ["Annotation", "Category", "Dataset", "ImageRecord"]


@dataclass(frozen=True)
class Dataset:
    """Images below `root` with their labels; the order is the one of the COCO file.

    The images are in memory, or, as `load` gives them, in a file of which a small part is in memory at a time: then
    reading them in order is quick, and reading them in another order is slow.
    """

    root: Path
    categories: tuple[Category, ...]
    images: Sequence[ImageRecord]

    @property
    def category_names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.categories)

    def category_ids(self, classes: Sequence[str]) -> dict[str, int]:
        """Class name -> category id: the file's own, and fresh ids for classes that it has never heard of."""
        ids = {category.name: category.id for category in self.categories}
        for name in classes:
            ids.setdefault(name, max(ids.values(), default=0) + 1)
        return ids

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the content: ids of images and labels, image SHA-256s and sizes, masks with their classes.

        Neither the place and the names of the files nor any order in the COCO file count, nor do ids of classes and
        classes without a label.
        """
        sha256, separator = hashlib.sha256(b"["), b""
        with sorted_on_disk(self._lines()) as lines:
            for line in lines:
                sha256.update(separator + line)
                separator = b","
        sha256.update(b"]")
        return sha256.hexdigest()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The id of each image, by which its text is sorted, and the text."""
        for image in self.images:
            content = [
                *(image.id, image.sha256, image.width, image.height),
                sorted((a.id, a.category, a.rle["counts"], a.crowd) for a in image.annotations),
            ]
            yield image.id, json.dumps(content, separators=(",", ":")).encode()

    @cached_property
    def _ids(self) -> tuple[Rows, Rows]:
        """(N,) ids, ascending, and the places of their images."""
        known = self.images
        ids = known.ids if isinstance(known, ImageFile) else np.array([image.id for image in known], np.int64)
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    def _place(self, image_id: int) -> int:
        ids, places = self._ids
        at = int(np.searchsorted(ids, image_id, side="right")) - 1
        if at < 0 or ids[at] != image_id:
            raise DataError(
                f"the data set in {self.root} has no image with id {image_id}; run 'samif run' to write it again"
            )
        return int(places[at])

    def image(self, image_id: int) -> ImageRecord:
        """The image of that id.

        Raises:
            DataError: there is none.
        """
        return self.images[self._place(image_id)]

    def path_of(self, image: ImageRecord) -> Path:
        return self.root / image.file_name

    def only(self, image_ids: Iterable[int]) -> Dataset:
        """The same data set with these images alone, in the old order and with all categories.

        Raises:
            DataError: an id is unknown.
        """
        wanted = np.unique(np.fromiter(image_ids, np.int64))
        ids, places = self._ids
        unknown = wanted[~np.isin(wanted, ids)]
        if len(unknown):
            self._place(int(unknown[0]))
        return self._at(np.sort(places[np.isin(ids, wanted)]))

    def _at(self, places: Rows) -> Dataset:
        known = self.images
        part = known.select(places) if isinstance(known, ImageFile) else tuple(known[at] for at in places.tolist())
        return replace(self, images=part)

    def without_labels(self) -> Dataset:
        """The same images, quicker to read from a file; a data set in memory is not changed."""
        known = self.images
        return replace(self, images=known.without_labels()) if isinstance(known, ImageFile) else self

    def in_memory(self) -> Dataset:
        """The same data set, quick to read in any order."""
        return replace(self, images=tuple(self.images))

    def save(self, path: Path) -> None:
        """Write the index (`samif.dataset.index_file`); it appears whole or not at all."""
        write_index(path, self.categories, self.images)

    @classmethod
    def load(cls, path: Path, root: Path) -> Self:
        """Read what `save` wrote, by parts and as they are asked for. The file is trusted: no image is opened and no
        mask is checked.

        Raises:
            ObjectMissing: there is no such file.
            IntegrityError: it is damaged or was not written by `save`; a damaged part is noticed when it is read.
        """
        images = ImageFile(path)
        return cls(root, images.categories, images)
