"""What a prompt should answer: one object's mask, or nothing.

All arrays are in the encoder's frame at `LABELS` x `LABELS` cells over the padded square.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from samif.dataset.model import ImageRecord
from samif.masks.rle import decode
from samif.sam.frame import Frame

LABELS = 256
SEAM = 5
"""Cells across which two objects count as touching."""


@dataclass(frozen=True)
class ImageTargets:
    """The learnable instances of one image.

    Attributes:
        objects: share of each cell that instance i covers (I, LABELS, LABELS), uint8 0..255.
        ignored: cells of crowds and of classes that must stay unseen (LABELS, LABELS); never prompted as background.
        frame: the image's frame.
    """

    objects: NDArray[np.uint8]
    ignored: NDArray[np.bool_]
    frame: Frame

    @classmethod
    def of(cls, image: ImageRecord, classes: frozenset[str], image_size: int) -> ImageTargets:
        """Targets from an image's annotations; those outside `classes` are ignored, not background."""
        frame = Frame(image.height, image.width, image_size)
        learn = [a for a in image.annotations if a.category in classes and not a.crowd]
        leave = [a for a in image.annotations if a.category not in classes or a.crowd]
        ignored = np.zeros((LABELS, LABELS), dtype=bool)
        if leave:
            ignored = _cells(decode([a.rle for a in leave]), frame).max(axis=0) > 0
        if learn:
            objects = _cells(decode([a.rle for a in learn]), frame)
        else:
            objects = np.zeros((0, LABELS, LABELS), dtype=np.uint8)
        return cls(objects, ignored, frame)

    @cached_property
    def covered(self) -> NDArray[np.bool_]:
        """Cells that any instance or ignored region touches (LABELS, LABELS)."""
        return np.asarray((self.objects.max(axis=0, initial=0) > 0) | self.ignored)

    @cached_property
    def background(self) -> NDArray[np.int64]:
        """Cells of the image that nothing covers (N, 2) as (x, y)."""
        free = ~self.covered
        h, w = self._valid
        free[h:], free[:, w:] = False, False
        return _places(free)

    @cached_property
    def seams(self) -> NDArray[np.int64]:
        """Uncovered cells between two objects that nearly touch (N, 2): where a prompt is tempted to take both."""
        near = np.zeros((LABELS, LABELS), dtype=np.uint8)
        for mask in self.objects:
            near += ndimage.binary_dilation(mask > 127, iterations=SEAM)
        free = (near >= 2) & ~self.covered
        h, w = self._valid
        free[h:], free[:, w:] = False, False
        return _places(free)

    def interior(self, index: int, erosion: float) -> NDArray[np.int64]:
        """Cells inside the eroded mask of an instance (N, 2) as (x, y), the deepest one where erosion leaves none.

        `erosion` is the share of the largest inner distance that is taken off (paper: mask erosion).
        """
        key = (index, erosion)
        if key not in self._interiors:
            self._interiors[key] = self._eroded(index, erosion)
        return self._interiors[key]

    def soft(self, index: int, resolution: int) -> NDArray[np.float32]:
        """The mask of an instance as share of each of resolution x resolution cells."""
        block = LABELS // resolution
        cells = self.objects[index].reshape(resolution, block, resolution, block)
        return np.asarray(cells.mean(axis=(1, 3)) / 255.0, dtype=np.float32)

    def depth(self, resolution: int) -> NDArray[np.float32]:
        """How deep inside its object each cell lies, 1 at the deepest: target of the point proposal map."""
        if resolution not in self._depths:
            self._depths[resolution] = self._depth(resolution)
        return self._depths[resolution]

    @cached_property
    def _interiors(self) -> dict[tuple[int, float], NDArray[np.int64]]:
        return {}

    @cached_property
    def _depths(self) -> dict[int, NDArray[np.float32]]:
        return {}

    def _eroded(self, index: int, erosion: float) -> NDArray[np.int64]:
        mask = self.objects[index]
        y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        window = mask[
            y[0] : y[-1] + 1, x[0] : x[-1] + 1
        ]  # distances inside an object do not depend on anything outside it
        depth = ndimage.distance_transform_edt(np.pad(window > 127, 1))[1:-1, 1:-1]
        if not depth.any():
            depth = window.astype(np.float64)
        cells = _places(depth >= max(erosion * depth.max(), 1e-9))
        return np.asarray(cells + np.array([x[0], y[0]]), dtype=np.int64)

    def _depth(self, resolution: int) -> NDArray[np.float32]:
        block = LABELS // resolution
        out = np.zeros((resolution, resolution), dtype=np.float32)
        for mask in self.objects:
            small = mask[block // 2 :: block, block // 2 :: block] > 127
            if not small.any():
                y, x = np.unravel_index(int(mask.argmax()), mask.shape)
                small[y // block, x // block] = True
            inner = ndimage.distance_transform_edt(np.pad(small, 1))[1:-1, 1:-1]
            out = np.maximum(out, inner / inner.max())
        return out.astype(np.float32)

    @property
    def _valid(self) -> tuple[int, int]:
        side = max(self.frame.height, self.frame.width)
        return int(LABELS * self.frame.height / side), int(LABELS * self.frame.width / side)


def to_points(cells: NDArray[np.int64], frame: Frame) -> NDArray[np.float32]:
    """Cell indices (N, 2) -> points (N, 2) in encoder pixels, at the cells' centres."""
    return ((cells + 0.5) * (frame.image_size / LABELS)).astype(np.float32)


def _cells(masks: NDArray[np.bool_], frame: Frame) -> NDArray[np.uint8]:
    low = frame.low_masks(torch.from_numpy(masks), LABELS)
    # up, so that an object far smaller than a cell still has one
    return np.asarray((low * 255.0).ceil().clamp(max=255.0).numpy(), dtype=np.uint8)


def _places(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    y, x = np.nonzero(mask)
    return np.stack([x, y], axis=1).astype(np.int64)
