"""Which images are embedded by which encoder: the output that DVC tracks instead of the shards."""

from __future__ import annotations

import json
from typing import Self

from pydantic import model_validator

from samif.config import StoredAs, Strict, digest
from samif.errors import IntegrityError
from samif.io.document import Document

Shape = tuple[int, int, int]
"""(C, h, w) of one embedding."""


class EncoderIdentity(Strict):
    """The encoder that made the embeddings."""

    name: str
    digest: str


class EmbeddingManifest(Document):
    """Which images are embedded, by which encoder: the DVC output.

    It names no shard and no folder, so its bytes depend on the images and the encoder alone, not on the machine
    nor on the history of the store.
    """

    WHAT = "an embedding manifest"
    REMEDY = "delete it and run 'samif run', which computes the embeddings"

    encoder: EncoderIdentity
    preprocessing: str
    shape: Shape
    dtype: StoredAs = "float16"
    """What embeddings are rounded to in the store."""
    images: tuple[str, ...]
    """SHA-256 of each image file, ascending."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.images) != sorted(set(self.images)):
            raise ValueError("'images' must ascend and hold no image twice")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical content."""
        return digest(self.model_dump(mode="json", by_alias=False))

    def content(self) -> bytes:
        """The manifest and its digest as JSON; equal manifests give equal bytes."""
        content = {**self.model_dump(mode="json"), "digest": self.digest}
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, origin: str) -> Self:
        """As `Document.parse`; a manifest that was edited is refused too.

        Raises:
            IntegrityError: the bytes are no manifest, or not what their digest says.
        """
        try:
            fields = json.loads(content)
            claimed = fields.pop("digest")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise IntegrityError(f"{origin} is damaged, or not {cls.WHAT}; {cls.REMEDY}") from None
        manifest = super().parse(json.dumps(fields).encode(), origin)
        if claimed != manifest.digest:
            raise IntegrityError(f"{origin} does not match its own digest; {cls.REMEDY}")
        return manifest
