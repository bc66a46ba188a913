"""What a namespace of the store is of, and how that names it and everything in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from flows.store.index import Words, words
from flows.store.storage import Storage
from samif.config import StoredAs, Strict

if TYPE_CHECKING:
    from flows.artifacts.embedding_manifest import EmbeddingManifest

_FILE = "namespace.json"


class Identity(Strict):
    """An encoder, a preprocessing, and the dtype in which embeddings are stored: two embeddings of an image that
    differ in one of them are different things, and never lie in one namespace."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    encoder: str
    preprocessing: str
    dtype: StoredAs

    @classmethod
    def of(cls, manifest: EmbeddingManifest) -> Identity:
        """Where the embeddings of a manifest lie."""
        return cls(encoder=manifest.encoder.digest, preprocessing=manifest.preprocessing, dtype=manifest.dtype)

    @property
    def folder(self) -> str:
        """Name of the namespace."""
        return hashlib.sha256(self._text).hexdigest()[:16]

    @property
    def _text(self) -> bytes:
        # float16 is not named, so that embeddings from before there was a choice keep their keys.
        named = "" if self.dtype == "float16" else f"{self.dtype}\n"
        return f"{self.encoder}\n{self.preprocessing}\n{named}".encode()

    def keys(self, images: Sequence[str]) -> list[str]:
        """Key of each image (SHA-256 of its file, hex): the SHA-256 over this and the image."""
        return [key.hex() for key in self._digests(images)]

    def words(self, images: Sequence[str]) -> Words:
        """(n, 2) the same as a catalogue takes them."""
        return words(self._digests(images))

    def _digests(self, images: Sequence[str]) -> list[bytes]:
        start = hashlib.sha256(self._text)
        keys = []
        for image in images:
            key = start.copy()
            key.update(image.encode())
            keys.append(key.digest())
        return keys

    def note(self, storage: Storage) -> None:
        """Leave this in the namespace, for people and `samif store stat`; nothing else reads it."""
        storage.create(f"{self.folder}/{_FILE}", (self.model_dump_json(indent=1, by_alias=True) + "\n").encode())


def noted(storage: Storage, folder: str) -> Identity | None:
    """What the namespace `folder` says that it is; None if it says nothing that fits."""
    try:
        identity = Identity.model_validate_json(storage.read(f"{folder}/{_FILE}") or b"")
    except ValidationError:
        return None
    return identity if identity.folder == folder else None
