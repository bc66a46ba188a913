"""Encoding of embeddings as bytes of a safetensors file, and decoding.

A shard is one tensor `embeddings`; n images, C, h, w channels, height and width of an embedding:

    float16  (n, C, h, w)
    int8     (n, 4 * C + C * h * w) uint8: of each image C scales as float32, then C * h * w integers of eight bits;
             a number is its integer times the scale of its channel

so a row is one range of bytes, at a known distance from the end of the file.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from samif.config import StoredAs

if TYPE_CHECKING:
    import torch

Shape = tuple[int, int, int, int]
"""(n, C, h, w)"""

_SAFETENSORS_TYPES = {"float16": "F16", "int8": "U8"}
_LARGEST = 127
_WORD = 8


class Encoded(NamedTuple):
    """Stored rows, on the CPU and contiguous, and whether all numbers of each row are finite, (n,)."""

    rows: torch.Tensor
    finite: torch.Tensor


class Layout:
    """Offsets of the rows of a shard in its file."""

    def __init__(self, stored_as: StoredAs, shape: Shape, size: int) -> None:
        n, channels, height, width = shape
        self._scales = 4 * channels if stored_as == "int8" else 0
        self._row = self._scales + channels * height * width * (1 if stored_as == "int8" else 2)
        self._start = size - n * self._row

    def span(self, row: int, count: int) -> tuple[int, int]:
        """The byte range of the file that holds `count` rows from `row` on."""
        return self._start + row * self._row, self._start + (row + count) * self._row

    def sums(self, memory: memoryview, row: int, count: int) -> npt.NDArray[np.int64]:
        """(count,) checksums of rows, see `row_sums`."""
        start, end = self.span(row, count)
        words = np.frombuffer(memory, np.int64, (end - start) // _WORD, start)
        sums: npt.NDArray[np.int64] = words.reshape(count, -1).sum(1)
        return sums

    def decode(self, memory: memoryview, row: int, out: torch.Tensor) -> None:
        """Rows from `row` on into `out` (count, C, h, w), float32 or float16."""
        import torch

        start, end = self.span(row, len(out))
        if not self._scales:
            out.copy_(torch.frombuffer(memory, dtype=torch.float16, count=out.numel(), offset=start).view(out.shape))
            return
        rows = torch.frombuffer(memory, dtype=torch.uint8, count=end - start, offset=start).view(len(out), -1)
        scales = rows[:, : self._scales].view(torch.float32).view(len(out), -1, 1, 1)
        integers = rows[:, self._scales :].view(torch.int8).view(out.shape)
        if out.dtype == torch.float32:
            out.copy_(integers).mul_(scales)
        else:
            out.copy_(integers.float().mul_(scales))


def encode(embeddings: torch.Tensor, stored_as: StoredAs) -> Encoded:
    """Stored form of (n, C, h, w) floating point on any device.

    Raises:
        ValueError: a row is no multiple of eight bytes, so it has no checksum.
    """
    import torch

    if stored_as == "int8":
        values = embeddings.detach().to("cpu", torch.float32)
        scales = values.abs().amax((2, 3)) / _LARGEST
        finite = torch.isfinite(scales).all(1)
        steps = torch.where(scales > 0, scales, torch.ones(())).view(*scales.shape, 1, 1)
        integers = (values / steps).round_().to(torch.int8)
        rows = torch.cat([scales.view(torch.uint8), integers.view(torch.uint8).flatten(1)], 1)
    else:
        rows = embeddings.detach().to("cpu", torch.float16).contiguous()
        finite = torch.isfinite(rows).flatten(1).all(1)
    if rows[0].nbytes % _WORD:
        raise ValueError(f"embeddings of shape {tuple(embeddings.shape[1:])} as {stored_as} are no whole 64-bit words")
    return Encoded(rows, finite)


def row_sums(rows: torch.Tensor) -> tuple[int, ...]:
    """Checksum of each row: the sum of its bytes as signed 64-bit words, modulo 2**64.

    Any single changed word changes the sum; SHA-256, which `verify` uses, would halve the speed of reading.
    """
    return tuple(_octets(rows).reshape(len(rows), -1).view(np.int64).sum(1).tolist())


def serialise(rows: torch.Tensor, stored_as: StoredAs, keys: list[str]) -> list[bytes | memoryview]:
    """The file in pieces, the same bytes as `safetensors.torch.save` makes with three copies of the tensor.

    There is one metadata entry: safetensors does not order several, and equal shards must have equal bytes.
    """
    tensor = {"dtype": _SAFETENSORS_TYPES[stored_as], "shape": list(rows.shape), "data_offsets": [0, rows.nbytes]}
    header = {"__metadata__": {"keys": json.dumps(keys)}, "embeddings": tensor}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _WORD)
    return [struct.pack("<Q", len(text)) + text, _octets(rows).data]


def keys_of(content: bytes) -> tuple[str, ...] | None:
    """The keys in a file that `serialise` made; None for any other file."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        return tuple(map(str, json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["keys"])))
    except (struct.error, ValueError, KeyError, TypeError):
        return None


def _octets(rows: torch.Tensor) -> npt.NDArray[np.uint8]:
    import torch

    octets: npt.NDArray[np.uint8] = rows.view(torch.uint8).numpy().reshape(-1)
    return octets
