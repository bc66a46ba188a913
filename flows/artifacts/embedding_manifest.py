"""Which images are embedded by which encoder: the output that DVC tracks instead of the shards.

One Parquet file: a column `image` of 32 bytes, ascending, in row groups; what concerns all rows is JSON in the schema's
metadata. Equal manifests give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, ConfigDict, SkipValidation, ValidationError, model_validator

from flows.artifacts.image_keys import CHUNK, KEY_BYTES, ImageKeys
from samif.config import StoredAs, Strict
from samif.errors import IntegrityError
from samif.io import files
from samif.io.document import Document
from samif.io.parquet import open_parquet, reading, writer

Shape = tuple[int, int, int]
"""(C, h, w) of one embedding."""

_TYPE = pa.binary(KEY_BYTES)
_HEADER = b"samif"


class EncoderIdentity(Strict):
    """The encoder that made the embeddings."""

    name: str
    digest: str


def _keys(images: Iterable[str]) -> ImageKeys:
    return ImageKeys.of(images)


class EmbeddingManifest(Document):
    """Which images are embedded, by which encoder: the DVC output.

    It names no shard and no folder, so its bytes depend on the images and the encoder alone, not on the machine
    nor on the history of the store. In memory an image takes 32 bytes.
    """

    WHAT = "an embedding manifest"
    REMEDY = "delete it and run 'samif run', which computes the embeddings"

    model_config = ConfigDict(arbitrary_types_allowed=True)

    encoder: EncoderIdentity
    preprocessing: str
    shape: Shape
    dtype: StoredAs = "float16"
    """What embeddings are rounded to in the store."""
    images: Annotated[SkipValidation[ImageKeys], BeforeValidator(_keys)]
    """SHA-256 of each image file, ascending."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.images.ascend:
            raise ValueError("'images' must ascend and hold no image twice")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        sha256 = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        sha256.update(self.images.raw.data)
        return sha256.hexdigest()

    def _header(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"images"}) | {"count": len(self.images)}

    def save(self, path: Path) -> None:
        """Write the manifest, whole or not at all; its folder is made where it is missing."""
        header = json.dumps(self._header() | {"digest": self.digest}, sort_keys=True)
        schema = pa.schema([pa.field("image", _TYPE, nullable=False)], metadata={_HEADER: header})
        with files.written(path) as draft, writer(draft, schema, compression="none") as out:
            for start in range(0, len(self.images), CHUNK):
                rows = self.images.raw[start : start + CHUNK]
                out.write(
                    pa.record_batch([pa.Array.from_buffers(_TYPE, len(rows), [None, pa.py_buffer(rows)])], schema)
                )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check what `save` wrote, a row group at a time.

        Raises:
            ObjectMissing: there is no such file.
            IntegrityError: the file cannot be read, is damaged, or not what its digest says; or it is the JSON file of
                an earlier release.
        """
        with open_parquet(path, cls.WHAT, cls.REMEDY) as file, reading(path, cls.WHAT, cls.REMEDY):
            fields, claimed = _read_header(file.schema_arrow)
            raw, at = np.empty((int(fields.pop("count")), KEY_BYTES), np.uint8), 0
            for batch in file.iter_batches(CHUNK, columns=["image"]):
                rows = np.frombuffer(batch["image"].buffers()[1], np.uint8).reshape(-1, KEY_BYTES)
                offset = batch["image"].offset
                raw[at : at + len(batch)] = rows[offset : offset + len(batch)]
                at += len(batch)
            if at != len(raw):
                raise ValueError(f"it has {at} images instead of {len(raw)}")
        try:
            manifest = cls.model_validate(fields | {"images": ImageKeys(raw)})
        except ValidationError as error:
            raise cls.refusal(error, str(path)) from None
        if claimed != manifest.digest:
            raise IntegrityError(f"{path} does not match its own digest; {cls.REMEDY}")
        return manifest


def _read_header(schema: pa.Schema) -> tuple[dict[str, Any], str]:
    """The fields in the schema's metadata, and the digest."""
    fields = json.loads((schema.metadata or {}).get(_HEADER, b""))
    if schema.field("image").type != _TYPE:
        raise ValueError("its column 'image' is of another type")
    fields["shape"], fields["encoder"] = tuple(fields["shape"]), EncoderIdentity(**fields["encoder"])
    return fields, fields.pop("digest")
