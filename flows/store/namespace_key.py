"""Key of a namespace of the store: it names the namespace and every embedding in it."""

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


class NamespaceKey(Strict):
    """Encoder digest, preprocessing digest and stored dtype: embeddings that differ in one of them are never in the
    same namespace."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    encoder: str
    preprocessing: str
    dtype: StoredAs

    @classmethod
    def of(cls, manifest: EmbeddingManifest) -> NamespaceKey:
        """The key under which the embeddings of a manifest are stored."""
        return cls(encoder=manifest.encoder.digest, preprocessing=manifest.preprocessing, dtype=manifest.dtype)

    @property
    def folder(self) -> str:
        """Name of the namespace."""
        return hashlib.sha256(self._text).hexdigest()[:16]

    @property
    def _text(self) -> bytes:
        # float16 is not named: embeddings that were stored before there was a choice keep their keys.
        named = "" if self.dtype == "float16" else f"{self.dtype}\n"
        return f"{self.encoder}\n{self.preprocessing}\n{named}".encode()

    def keys(self, images: Sequence[str]) -> list[str]:
        """Key of each image (SHA-256 of its file, hex): the SHA-256 over this and the image."""
        return [key.hex() for key in self._digests(images)]

    def words(self, images: Sequence[str]) -> Words:
        """(n, 2) the same keys, in the form in which a catalogue looks them up."""
        return words(self._digests(images))

    def _digests(self, images: Sequence[str]) -> list[bytes]:
        start = hashlib.sha256(self._text)
        keys = []
        for image in images:
            key = start.copy()
            key.update(image.encode())
            keys.append(key.digest())
        return keys

    def write(self, storage: Storage) -> None:
        """Write the key into the namespace, for people and `samif store stat`; nothing else reads it."""
        storage.create(f"{self.folder}/{_FILE}", (self.model_dump_json(indent=1, by_alias=True) + "\n").encode())


def read_key(storage: Storage, folder: str) -> NamespaceKey | None:
    """The key that is written in namespace `folder`; None if there is none or it does not match the name."""
    try:
        key = NamespaceKey.model_validate_json(storage.read(f"{folder}/{_FILE}") or b"")
    except ValidationError:
        return None
    return key if key.folder == folder else None
