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
        side = max(self.height, self.width)
        padded = F.pad(masks.float(), (0, side - self.width, 0, side - self.height))
        return F.interpolate(padded.unsqueeze(1), (resolution, resolution), mode="area")[:, 0]

    def inside(self, points: Tensor) -> Tensor:
        """Whether encoder points (..., 2) lie on the image, not on the padding."""
        return (points[..., 0] < self.width * self.scale) & (points[..., 1] < self.height * self.scale)


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
