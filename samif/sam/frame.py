"""From image pixels to the encoder's frame and back.

SAM resizes the longer side to `image_size` and pads right and bottom; low-resolution masks cover the padded square.
Small objects are seen better in tiles: overlapping parts of the image, each encoded like an image of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

T = TypeVar("T", bound=np.generic)

TILE_OVERLAP = 0.25
"""Share of a tile's side that the next tile sees too: an object up to this size is whole in one of them."""


@dataclass(frozen=True)
class Frame:
    """An image of `height` x `width` pixels in an encoder's square of `image_size`, and in `tiles` x `tiles` tiles
    beside it where that is more than 1."""

    height: int
    width: int
    image_size: int
    tiles: int = 1

    @property
    def scale(self) -> float:
        """Encoder pixels per image pixel."""
        return self.image_size / max(self.height, self.width)

    def to_encoder(self, points: Tensor) -> Tensor:
        """Points (..., 2) as (x, y): image pixels -> encoder pixels."""
        return points * self.scale

    def low_masks(self, masks: Tensor, resolution: int) -> Tensor:
        """Masks (N, height, width) in image pixels -> the share of each cell that they cover (N, r, r)."""
        if masks.dtype != torch.bool or masks.device.type != "cpu":
            side = max(self.height, self.width)
            padded = F.pad(masks.float(), (0, side - self.width, 0, side - self.height))
            return F.interpolate(padded.unsqueeze(1), (resolution, resolution), mode="area")[:, 0]
        return torch.from_numpy(np.stack([self._shares(mask, resolution) for mask in masks.numpy()]))

    def _shares(self, mask: NDArray[np.bool_], resolution: int) -> NDArray[np.float32]:
        """`low_masks` of one mask, bit for bit, read only where it is set: quick for a small object."""
        low = np.zeros((resolution, resolution), dtype=np.float32)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return low
        side = max(self.height, self.width)
        y, x = (_cells(int(pixels[0]), int(pixels[-1]) + 1, resolution, side) for pixels in (rows, columns))
        part = np.zeros((y.pixels + 1, x.pixels + 1), dtype=np.uint8)  # one more, where the last cell may end
        part[:-1, :-1] = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        counts = np.add.reduceat(part, y.edges, axis=0, dtype=np.uint8 if y.sizes.max() < 256 else np.int32)[::2]
        counts = np.add.reduceat(counts, x.edges, axis=1, dtype=np.int32)[:, ::2]
        low[y.cells, x.cells] = counts.astype(np.float32) / y.sizes[:, None] / x.sizes
        return low

    def inside(self, points: Tensor) -> Tensor:
        """Whether encoder points (..., 2) lie on the image, not on the padding."""
        return (points[..., 0] < self.width * self.scale) & (points[..., 1] < self.height * self.scale)


@dataclass(frozen=True)
class _Cells:
    """The low-resolution cells over a span of `pixels` along one axis.

    Attributes:
        cells: their numbers.
        edges: first pixel of the span in a cell and the one after the last, cell by cell; cells overlap.
        sizes: pixels of each whole cell.
    """

    pixels: int
    cells: slice
    edges: NDArray[np.int64]
    sizes: NDArray[np.float32]


def _cells(first: int, after: int, resolution: int, side: int) -> _Cells:
    """The cells over the pixels from `first` up to `after`, where `resolution` cells cover `side` pixels as in
    `torch.nn.functional.interpolate` by area."""
    numbers = np.arange(resolution, dtype=np.int64)
    begin, end = numbers * side // resolution, -((numbers + 1) * -side // resolution)
    over = np.flatnonzero((end > first) & (begin < after))
    begin, end = begin[over], end[over]
    edges = np.stack([np.maximum(begin, first), np.minimum(end, after)], axis=1).ravel() - first
    return _Cells(after - first, slice(int(over[0]), int(over[-1]) + 1), edges, (end - begin).astype(np.float32))


@dataclass(frozen=True)
class View:
    """One encoded part of an image: its `frame`, and the image pixel (x, y) of its top left corner."""

    x: int
    y: int
    frame: Frame

    def cut(self, a: NDArray[T]) -> NDArray[T]:
        """This part of an array (..., height, width) over the whole image."""
        return a[..., self.y : self.y + self.frame.height, self.x : self.x + self.frame.width]


def view_count(tiles: int) -> int:
    """Encoded parts of an image: the whole, and its tiles where there are any."""
    return 1 if tiles == 1 else 1 + tiles * tiles


def views(frame: Frame) -> list[View]:
    """The whole image, then its tiles row by row. Tiles have one size and the image's aspect ratio, and overlap by
    `TILE_OVERLAP`."""
    whole = View(0, 0, Frame(frame.height, frame.width, frame.image_size))
    if frame.tiles == 1:
        return [whole]
    share = 1.0 / (frame.tiles - (frame.tiles - 1) * TILE_OVERLAP)
    height, width = math.ceil(frame.height * share), math.ceil(frame.width * share)
    part = Frame(height, width, frame.image_size)
    at = [i / (frame.tiles - 1) for i in range(frame.tiles)]
    return [whole] + [
        View(round(x * (frame.width - width)), round(y * (frame.height - height)), part) for y in at for x in at
    ]


def split_views(embedding: Tensor, frame: Frame) -> list[tuple[View, Tensor]]:
    """The embedding (V * C, h, w) of an image, as an encoder with tiles makes it -> each view with its (C, h, w)."""
    parts = views(frame)
    return list(zip(parts, embedding.view(len(parts), -1, *embedding.shape[1:]), strict=True))


def grid_points(side: int, frame: Frame) -> Tensor:
    """A uniform grid of prompts over the image (side * side, 2), in encoder pixels (SAM-IF, prompting)."""
    steps = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(steps * frame.height, steps * frame.width, indexing="ij")
    return frame.to_encoder(torch.stack([x.flatten(), y.flatten()], dim=1))
