"""Which images are embedded by which encoder: the output that DVC tracks instead of the shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from samif.config import StoredAs, Strict, digest
from samif.errors import SamifError
from samif.io import files

Shape = tuple[int, int, int]
"""(C, h, w) of one embedding."""


class EncoderIdentity(Strict):
    """The encoder that made the embeddings."""

    name: str
    digest: str


class EmbeddingManifest(Strict):
    """Which images are embedded, by which encoder: the DVC output.

    It names no shard and no folder, so its bytes depend on the images and the encoder alone, not on the machine
    nor on the history of the store.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
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
        return digest(self)

    def save(self, path: Path) -> None:
        """Write as JSON, atomically; equal manifests give equal bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**self.model_dump(mode="json", by_alias=True), "digest": self.digest}
        files.commit(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> EmbeddingManifest:
        """Read and check a manifest.

        Raises:
            SamifError: the file is missing, is no such manifest, or was changed by hand.
        """
        try:
            content = json.loads(path.read_bytes())
            claimed = content.pop("digest")
            manifest = cls.model_validate_json(json.dumps(content))
        except FileNotFoundError:
            raise SamifError(f"{path} does not exist; run 'samif run' to compute the embeddings") from None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise SamifError(f"{path} is not an embedding manifest; delete it and rerun 'samif run'") from None
        if claimed != manifest.digest:
            raise SamifError(f"{path} does not match its own digest; delete it and rerun 'samif run'")
        return manifest
