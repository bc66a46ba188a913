"""How embeddings are stored: numbers to bytes of a safetensors file, and back.

    float16, bfloat16    one tensor `embeddings` (n, C, h, w)
    int8                 the same, and before it `scales` (n, C) float32: the value is the integer times its scale

A file is its header, the scales if there are any, then the embeddings, so that a row lies at a known distance from the
end. Shape legend: n pictures; C, h, w channels, height and width of an embedding.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from samif.config import StoredAs

if TYPE_CHECKING:
    import torch

Shape = tuple[int, int, int, int]
"""(n, C, h, w)"""

_SAFETENSORS_TYPES = {"float16": "F16", "bfloat16": "BF16", "int8": "I8", "float32": "F32"}
_WORD = 8


class Layout:
    """Where the rows of a shard lie in its file."""

    def __init__(self, stored: StoredAs, shape: Shape, size: int) -> None:
        n, channels, height, width = shape
        self.stored, self.shape = stored, shape
        self.row = channels * height * width * (1 if stored == "int8" else 2)
        self.scale = channels * 4 if stored == "int8" else 0
        self.rows_at = size - n * self.row
        self.scales_at = self.rows_at - n * self.scale

    def spans(self, row: int, count: int) -> list[tuple[int, int]]:
        """The parts of the file that hold rows."""
        places = [(self.rows_at, self.row)] + ([(self.scales_at, self.scale)] if self.scale else [])
        return [(at + row * length, at + (row + count) * length) for at, length in places]

    def sums(self, memory: memoryview, row: int, count: int) -> npt.NDArray[np.int64]:
        """(count,) sum of each row's bytes, scales included, as signed 64-bit words, modulo 2**64.

        Any single changed word changes the sum; SHA-256, which `verify` uses, would halve the speed of reading.
        """
        total = np.zeros(count, np.int64)
        for start, end in self.spans(row, count):
            words = np.frombuffer(memory, np.int64, (end - start) // _WORD, start)
            total += words.reshape(count, -1).sum(1)
        return total

    def decode(self, memory: memoryview, row: int, out: torch.Tensor) -> None:
        """Rows from `row` on into `out` (count, C, h, w), float32 or float16."""
        import torch

        dtype: torch.dtype = getattr(torch, self.stored)
        count = len(out)
        spans = self.spans(row, count)
        rows = torch.frombuffer(memory, dtype=dtype, count=out.numel(), offset=spans[0][0]).view(out.shape)
        if self.scale:
            scales = torch.frombuffer(memory, dtype=torch.float32, count=count * out.shape[1], offset=spans[1][0])
            torch.mul(rows, scales.view(count, -1, 1, 1), out=out)
        else:
            out.copy_(rows)


def encode(embeddings: torch.Tensor, stored: StoredAs) -> dict[str, torch.Tensor]:
    """Tensors of a shard file, in the order of the file.

    Args:
        embeddings: (n, C, h, w) floating point on any device.

    Returns:
        On the CPU, contiguous. What was not finite, or is not finite any more, is so in the scales or embeddings.

    Raises:
        ValueError: a row is no multiple of eight bytes, so that it cannot be summed.
    """
    import torch

    if stored == "int8":
        values = embeddings.detach().to("cpu", torch.float32)
        scales = values.abs().amax((2, 3)) / 127
        steps = torch.where(scales > 0, scales, torch.ones(())).view(*scales.shape, 1, 1)
        tensors = {"scales": scales, "embeddings": (values / steps).round_().to(torch.int8).contiguous()}
    else:
        tensors = {"embeddings": embeddings.detach().to("cpu", getattr(torch, stored)).contiguous()}
    if any(tensor[0].nbytes % _WORD for tensor in tensors.values()):
        raise ValueError(f"embeddings of shape {tuple(embeddings.shape[1:])} as {stored} are no whole 64-bit words")
    return tensors


def finite(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """(n,) whether every number of a row is finite."""
    import torch

    return torch.isfinite(next(iter(tensors.values()))).flatten(1).all(1)


def row_sums(tensors: dict[str, torch.Tensor]) -> tuple[int, ...]:
    """What `Layout.sums` finds in the file."""
    return tuple(sum(_bytes(t).reshape(len(t), -1).view(np.int64).sum(1) for t in tensors.values()).tolist())


def serialise(tensors: dict[str, torch.Tensor], keys: list[str]) -> list[bytes | memoryview]:
    """The file in pieces, byte for byte what `safetensors.torch.save` makes with its three copies of the tensors.

    One metadata entry only: safetensors does not order several, and equal shards must have equal bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"keys": json.dumps(keys)}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        dtype = _SAFETENSORS_TYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _WORD)
    return [struct.pack("<Q", len(text)) + text, *(_bytes(tensor).data for tensor in tensors.values())]


def _bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    import torch

    octets: npt.NDArray[np.uint8] = tensor.view(torch.uint8).numpy().reshape(-1)
    return octets
