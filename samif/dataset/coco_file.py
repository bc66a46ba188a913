"""A COCO instance file that is read in passes: its images and classes are in memory, its annotations one at a time."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samif.dataset.coco_json import KEYS, load_json, reading_json, several_documents
from samif.dataset.json_stream import LIST, OTHER, NotAnObject, elements
from samif.dataset.values import get, key_of
from samif.errors import DataError

_OF_AN_IMAGE = ("id", "file_name", "width", "height")
NO_ID = -(2**63)
"""Stands for an id that is no whole number."""


class CocoFile:
    """What the first pass over a file finds. `annotations` reads it again.

    Attributes:
        images: the records, with id, file name, width and height alone.
        categories: the records.
        ids: (N,) ids of the N annotations, NO_ID where there is none.
        odd_id: an example of an id that is no whole number; None where there is none.

    Raises:
        ObjectMissing: there is no such file.
        DataError: it cannot be read, is not JSON, or is JSON of another format, which is named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[Any] = []
        self.categories: list[Any] = []
        self.odd_id: object = None
        ids = array("q")
        lists: list[str] = []
        panoptic, captions, lvis = False, 0, 0
        for key, record in _elements(path):
            if record is LIST:
                lists.append(key)
            elif record is OTHER or key not in KEYS:
                continue
            elif key == "images":
                lvis += isinstance(record, dict) and "file_name" not in record and "coco_url" in record
                slim = isinstance(record, dict)
                self.images.append({k: record[k] for k in _OF_AN_IMAGE if k in record} if slim else record)
            elif key == "categories":
                self.categories.append(record)
            else:
                id_ = key_of(get(record, "id"))
                ids.append(id_ if isinstance(id_, int) else NO_ID)
                if not isinstance(id_, int) and self.odd_id is None:
                    self.odd_id = get(record, "id")
                panoptic = panoptic or (isinstance(record, dict) and "segments_info" in record)
                captions += isinstance(record, dict) and "caption" in record
        self.ids: npt.NDArray[np.int64] = np.frombuffer(ids, np.int64)
        other = panoptic or 0 < len(ids) == captions or 0 < len(self.images) == lvis
        if other or not set(KEYS) <= set(lists):
            load_json(path)  # names the format
        if twice := [key for key in KEYS if lists.count(key) > 1]:
            raise DataError(f"{path} has two lists '{twice[0]}'; join them, or export the annotations again")

    def annotations(self) -> Iterator[Any]:
        """The records, in file order."""
        count = 0
        for key, record in _elements(self.path):
            if key == "annotations" and record is not LIST:
                count += 1
                yield record
        if count != len(self.ids):
            raise DataError(f"{self.path} was changed while it was read; run the command again")


def _elements(path: Path) -> Iterator[tuple[str, Any]]:
    with reading_json(path):
        try:
            yield from elements(path)
        except NotAnObject:
            load_json(path)  # names what it is
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                raise several_documents(path) from None
            raise
