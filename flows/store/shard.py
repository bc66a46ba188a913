"""One shard of the embedding store: its manifest, and the description of a damaged one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from flows.store.codec import Layout
from flows.store.storage import Storage
from samif.config import StoredAs, Strict, digest


class ShardManifest(Strict):
    """Keys, shape and checksums of a shard."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    shard: str
    keys: tuple[str, ...]
    shape: tuple[int, int, int, int]
    dtype: StoredAs = "float16"
    file: str
    sha256: str
    bytes: int
    row_sums: tuple[int, ...]
    """Per row, the sum of its bytes as signed 64-bit words, modulo 2**64: fast enough to verify on every read."""
    checksum: str = ""

    @model_validator(mode="after")
    def _intact(self) -> Self:
        if self.checksum not in ("", self._own_checksum()):
            raise ValueError("checksum does not match")
        return self

    def _own_checksum(self) -> str:
        return digest(self.model_dump(mode="json", by_alias=True, exclude={"checksum"}))

    def sealed(self) -> Self:
        """The same with its checksum filled in."""
        return self.model_copy(update={"checksum": self._own_checksum()})

    @property
    def layout(self) -> Layout:
        """Offsets of the rows in the file."""
        return Layout(self.dtype, self.shape, self.bytes)


@dataclass(frozen=True)
class Damage:
    """A damaged shard: its name, the reason, and the objects to delete (manifest first); or a temporary file of a
    writer that is dead."""

    shard: str
    reason: str
    names: tuple[str, ...]
    storage: Storage = field(repr=False, compare=False)

    @property
    def manifest(self) -> bool:
        """Whether it is the damage of a shard with a manifest."""
        return bool(self.names) and self.names[0].endswith(".json")

    def discard(self) -> None:
        """Delete the objects: the shard no longer exists and its images are missing again."""
        self.storage.delete(self.names)


def manifest_name(folder: str, shard: str) -> str:
    """Name of the manifest of a shard in a namespace."""
    return f"{folder}/{shard[:2]}/{shard}.json"


def data_name(folder: str, shard: str, sha256: str) -> str:
    """Name of the data of a shard; it contains the start of its digest, so different data never share a name."""
    return f"{folder}/{shard[:2]}/{shard}.{sha256[:16]}.safetensors"


def read_manifest(storage: Storage, folder: str, shard: str) -> tuple[ShardManifest, int] | Damage:
    """The manifest of a shard and its size in bytes, or the damage that was found."""
    name = manifest_name(folder, shard)
    content = storage.read(name)
    if content is None:
        return Damage(shard, "its manifest is missing", (), storage)
    try:
        manifest = ShardManifest.model_validate_json(content)
    except ValidationError:
        return Damage(shard, "its manifest is damaged", (name,), storage)
    if manifest.checksum and manifest.shard == shard and manifest.file == _file(folder, manifest):
        return manifest, len(content)
    return Damage(shard, "its manifest is damaged", (name,), storage)


def broken(storage: Storage, folder: str, manifest: ShardManifest, reason: str) -> Damage:
    """Damage of a shard whose data does not match its manifest."""
    names = (manifest_name(folder, manifest.shard), data_name(folder, manifest.shard, manifest.sha256))
    return Damage(manifest.shard, reason, names, storage)


def _file(folder: str, manifest: ShardManifest) -> str:
    return data_name(folder, manifest.shard, manifest.sha256).rpartition("/")[2]
