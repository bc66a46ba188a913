"""Proposals and their features as Parquet: one row per proposal, images together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from samif.dataset.model import ImageRecord
from samif.errors import IntegrityError, ObjectMissing
from samif.inference.propose import Proposals
from samif.io import files

_VECTORS = ("tokens", "pooled")
_SEMANTIC = (*_VECTORS, "semantic")


def write_proposals(path: Path, images: Iterable[tuple[ImageRecord, Proposals]], semantic: bool = False) -> None:
    """Write the proposals of images, a row group each, whole or not at all; `semantic` says whether they have that
    column."""
    vectors = _SEMANTIC if semantic else _VECTORS
    schema = pa.schema(
        [
            ("image", pa.int64()),
            ("counts", pa.string()),
            ("iou", pa.float32()),
            ("objectness", pa.float32()),
            *((name, pa.list_(pa.float32())) for name in vectors),
        ]
    )
    with files.written(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for image, proposals in images:
            columns = {
                "image": np.full(len(proposals), image.id, dtype=np.int64),
                "counts": [mask["counts"] for mask in proposals.masks],
                "iou": proposals.iou,
                "objectness": proposals.objectness,
                **{name: list(getattr(proposals, name)) for name in vectors},
            }
            writer.write_table(pa.table(columns, schema=schema))


class ProposalFile:
    """Read access by image."""

    def __init__(self, path: Path) -> None:
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            raise ObjectMissing(f"{path} does not exist; run 'samif run'") from None
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{path} is damaged ({error}); delete it and run 'samif run'") from None
        self._table = table
        self._vectors = _SEMANTIC if _SEMANTIC[-1] in table.column_names else _VECTORS
        ids = table["image"].to_numpy()
        order = np.argsort(ids, kind="stable")
        images, starts = np.unique(ids[order], return_index=True)
        self._rows = dict(zip(images.tolist(), np.split(order, starts[1:]), strict=False))

    def of(self, image: ImageRecord) -> Proposals:
        """The proposals of an image; none where the segmenter found nothing."""
        rows = self._rows.get(image.id)
        if rows is None:
            nothing = np.zeros(0, np.float32)
            return Proposals([], nothing, nothing, *(np.zeros((0, 0), np.float32) for _ in self._vectors))
        part = self._table.take(rows)
        size = [image.height, image.width]
        return Proposals(
            [{"size": size, "counts": counts} for counts in part["counts"].to_pylist()],
            part["iou"].to_numpy(),
            part["objectness"].to_numpy(),
            *(np.stack(part[name].to_numpy(zero_copy_only=False)) for name in self._vectors),
        )
