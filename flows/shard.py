"""One shard of the embedding store: its manifest, its checks, and what is said of a damaged one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from samif.config import Strict, digest

if TYPE_CHECKING:
    import torch


class ShardManifest(Strict):
    """What a shard holds, and the checksums that tell whether it still does."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    shard: str
    keys: tuple[str, ...]
    shape: tuple[int, int, int, int]
    dtype: Literal["float16"] = "float16"
    file: str
    sha256: str
    bytes: int
    row_sums: tuple[int, ...]
    """Per row, the sum of its bytes as signed 64-bit words, modulo 2**64: a check at memory speed on every read."""
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


@dataclass(frozen=True)
class Damage:
    """Something in the store that must not be used: which shard, why, and the files to remove (manifest first)."""

    shard: str
    reason: str
    paths: tuple[Path, ...]

    def discard(self) -> None:
        """Remove the damaged files, so that the shard no longer exists and its pictures are missing again."""
        for path in self.paths:
            with contextlib.suppress(PermissionError):  # somebody else's store: the caller's complaint must do
                path.unlink(missing_ok=True)


def row_sums(embeddings: torch.Tensor) -> list[int]:
    """Sum of each row's bytes as signed 64-bit words, modulo 2**64. (n, C, h, w) float16, C * h * w a multiple of 4.

    Any single changed word changes the sum; SHA-256, which `verify` uses, would halve the speed of reading.
    """
    import torch

    sums: list[int] = embeddings.flatten(1).view(torch.int64).sum(1).tolist()
    return sums
