"""The index of a data set as Parquet: images in file order, each with its labels, read a row group at a time.

One row per image; what concerns all rows is JSON in the schema's metadata. Equal data sets give equal bytes.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from samif.dataset.records import Annotation, Category, ImageRecord
from samif.io import files
from samif.io.parquet import parquet_file, reading, writer

Rows = npt.NDArray[np.int64]

_WHAT = "an index of checked images"
_REMEDY = "run 'samif run' to write it again"
_HEADER = b"samif"
_IMAGES, _LABELS = 1024, 16384
"""A row group ends at so many images or labels: what a reader holds at a time."""
_OPEN_GROUPS = 4

_LABEL = pa.struct(
    [
        ("id", pa.int64()),
        ("category", pa.int32()),
        ("size", pa.list_(pa.int32(), 2)),
        ("counts", pa.string()),
        ("crowd", pa.bool_()),
        ("bbox", pa.list_(pa.float64(), 4)),
        ("area", pa.float64()),
    ]
)
_COLUMNS = (
    ("id", pa.int64()),
    ("file_name", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("sha256", pa.string()),
)
_NAMES = [name for name, _ in _COLUMNS]


def write_index(path: Path, categories: Sequence[Category], images: Iterable[ImageRecord]) -> None:
    """Write images, whole or not at all; they are taken one at a time."""
    with files.written(path) as draft:
        _write(draft, categories, images)


def spill(folder: Path) -> Callable[[Sequence[Category], Iterable[ImageRecord]], ImageFile]:
    """For `read_coco`: keeps its images in a file in `folder` instead of in memory. The file has no name and is gone
    when nothing refers to it."""

    def keep(categories: Sequence[Category], images: Iterable[ImageRecord]) -> ImageFile:
        folder.mkdir(parents=True, exist_ok=True)
        with files.staged(folder) as draft:
            _write(draft, categories, images)
            return ImageFile(draft)

    return keep


def _write(draft: Path, categories: Sequence[Category], images: Iterable[ImageRecord]) -> None:
    header = json.dumps({"schema": 1, "categories": [[category.id, category.name] for category in categories]})
    schema = pa.schema([*_COLUMNS, ("annotations", pa.list_(_LABEL))], metadata={_HEADER: header})
    places = {category.name: place for place, category in enumerate(categories)}
    with writer(draft, schema) as out:
        some: list[ImageRecord] = []
        labels = 0
        for image in images:
            some.append(image)
            labels += len(image.annotations)
            if len(some) == _IMAGES or labels >= _LABELS:
                out.write_batch(_batch(some, places, schema))
                some, labels = [], 0
        if some:
            out.write_batch(_batch(some, places, schema))


def _batch(images: Sequence[ImageRecord], places: dict[str, int], schema: pa.Schema) -> pa.RecordBatch:
    labels = [a for image in images for a in image.annotations]
    columns = [
        pa.array([a.id for a in labels], pa.int64()),
        pa.array([places[a.category] for a in labels], pa.int32()),
        pa.FixedSizeListArray.from_arrays(pa.array(chain.from_iterable(a.rle["size"] for a in labels), pa.int32()), 2),
        pa.array([a.rle["counts"] for a in labels], pa.string()),
        pa.array([a.crowd for a in labels], pa.bool_()),
        pa.FixedSizeListArray.from_arrays(
            pa.array([float(value) for a in labels for value in a.bbox], pa.float64()), 4
        ),
        pa.array([float(a.area) for a in labels], pa.float64()),
    ]
    offsets = np.cumsum([0, *(len(image.annotations) for image in images)])
    nested = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(columns, fields=list(_LABEL))
    )
    flat = [pa.array([getattr(image, name) for image in images], type_) for name, type_ in _COLUMNS]
    return pa.record_batch([*flat, nested], schema)


class ImageFile(Sequence[ImageRecord]):
    """Images of an index; a few row groups are in memory. The file stays open: another one may take its name.

    Args:
        rows: which of its images, ascending; None for all.
        labels: False leaves the labels out, which is quicker.
    """

    def __init__(self, path: Path, rows: Rows | None = None, labels: bool = True) -> None:
        self._open(path, parquet_file(path, _WHAT, _REMEDY), rows, labels)

    def _open(self, path: Path, file: pq.ParquetFile, rows: Rows | None, labels: bool) -> None:
        self._path, self._file, self._labels = path, file, labels
        with reading(path, _WHAT, _REMEDY):
            header = json.loads((file.schema_arrow.metadata or {})[_HEADER])
            self.categories = tuple(Category(id_, name) for id_, name in header["categories"])
            file.schema_arrow.field("annotations")
            counts = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        self._rows = np.arange(self._starts[-1], dtype=np.int64) if rows is None else rows
        self._groups: OrderedDict[int, list[ImageRecord]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFile, (self._path, self._rows, self._labels)

    def select(self, places: Rows, labels: bool = True) -> ImageFile:
        """Some of these images, by their places here, ascending."""
        part = ImageFile.__new__(ImageFile)
        part._open(self._path, self._file, self._rows[places], labels and self._labels)
        return part

    def without_labels(self) -> ImageFile:
        """The same images, quicker to read."""
        return self.select(np.arange(len(self)), labels=False)

    @property
    def ids(self) -> Rows:
        """(N,) the images' ids."""
        with reading(self._path, _WHAT, _REMEDY):
            ids = [batch["id"].to_numpy() for batch in self._file.iter_batches(columns=["id"])]
        found: Rows = np.concatenate([np.zeros(0, np.int64), *ids])[self._rows]
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ImageRecord]:
        for number in np.unique(np.searchsorted(self._starts, self._rows, side="right") - 1).tolist():
            group, start = self._group(number), int(self._starts[number])
            first, end = np.searchsorted(self._rows, self._starts[number : number + 2])
            for row in self._rows[first:end].tolist():
                yield group[row - start]

    @overload
    def __getitem__(self, at: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[ImageRecord, ...]: ...
    def __getitem__(self, at: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        if isinstance(at, slice):
            return tuple(self[place] for place in range(*at.indices(len(self))))
        row = int(self._rows[at])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._group(number)[row - int(self._starts[number])]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ImageFile({self._path.name!r}, {len(self)} images)"

    def _group(self, number: int) -> list[ImageRecord]:
        with self._lock:
            if number not in self._groups:
                if len(self._groups) == _OPEN_GROUPS:
                    self._groups.popitem(last=False)
                with reading(self._path, _WHAT, _REMEDY):
                    names = [*_NAMES, *(["annotations"] if self._labels else [])]
                    self._groups[number] = self._decode(self._file.read_row_group(number, columns=names))
            self._groups.move_to_end(number)
            return self._groups[number]

    def _decode(self, table: pa.Table) -> list[ImageRecord]:
        labels: list[Annotation] = []
        ends: Iterable[tuple[int, int]] = repeat((0, 0), len(table))
        if self._labels:
            nested = pa.concat_arrays(table["annotations"].chunks)
            labels, ends = list(self._annotations(nested.values)), pairwise(nested.offsets.to_pylist())
        columns = [table[name].to_pylist() for name in _NAMES]
        return [
            ImageRecord(id_, file_name, width, height, sha256, tuple(labels[first:end]))
            for id_, file_name, width, height, sha256, (first, end) in zip(*columns, ends, strict=True)
        ]

    def _annotations(self, struct: pa.StructArray) -> Iterator[Annotation]:
        names = [category.name for category in self.categories]
        sizes = np.asarray(struct.field("size").values).reshape(-1, 2).tolist()
        boxes = np.asarray(struct.field("bbox").values).reshape(-1, 4).tolist()
        others = (struct.field(name).to_pylist() for name in ("id", "category", "counts", "crowd", "area"))
        for id_, place, counts, crowd, area, size, box in zip(*others, sizes, boxes, strict=True):
            yield Annotation(id_, names[place], {"size": size, "counts": counts}, crowd, tuple(box), area)
