"""Labels sorted by image, on the disk where they are many: a COCO file has them in any order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from samif.dataset.records import Annotation

_AT_ONCE = 1000
_COLUMNS = "place, id, category, crowd, height, width, counts, x, y, w, h, area"


class LabelTable:
    """Collects labels in file order, then gives those of each image, in that order. Closed by its last reader."""

    def __init__(self) -> None:
        # A database without a name has no file until its cache is full, and the file is gone when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(f"PRAGMA journal_mode=OFF; CREATE TABLE label({_COLUMNS}); BEGIN;")
        self._waiting: list[tuple[Any, ...]] = []
        self.count = 0
        self.crowds_are_objects = False
        """Whether labels of regions are given as those of single objects."""

    def add(self, place: int, label: Annotation) -> None:
        """Add a label of the image at a place in the list of images."""
        size, counts = label.rle["size"], label.rle["counts"]
        row = (place, label.id, label.category, label.crowd, *size, counts, *label.bbox, label.area)
        self._waiting.append(row)
        self.count += 1
        if len(self._waiting) == _AT_ONCE:
            self._flush()

    def by_image(self, images: int) -> Iterator[tuple[Annotation, ...]]:
        """The labels of each image, in the order of the images."""
        self._flush()
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM label ORDER BY place, rowid")
        groups = groupby(rows, key=lambda row: row[0])
        place, group = next(groups, (images, iter(())))
        for at in range(images):
            if at < place:
                yield ()
                continue
            yield tuple(self._label(*row) for _, *row in group)
            place, group = next(groups, (images, iter(())))
        self._database.close()

    def _label(
        self, id_: int, category: str, crowd: int, height: int, width: int, counts: str, *measures: float
    ) -> Annotation:
        x, y, w, h, area = measures
        crowded = bool(crowd) and not self.crowds_are_objects
        return Annotation(id_, category, {"size": [height, width], "counts": counts}, crowded, (x, y, w, h), area)

    def _flush(self) -> None:
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        self._database.executemany(f"INSERT INTO label VALUES ({marks})", self._waiting)
        self._waiting.clear()
