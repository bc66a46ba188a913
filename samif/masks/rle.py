"""Boolean masks as COCO compressed RLE whose counts are text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

Rle = dict[str, Any]
"""{"size": [h, w], "counts": str}."""


def encode(masks: NDArray[np.bool_]) -> list[Rle]:
    """Masks (N, H, W) -> N run-length codes."""
    codes = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [{"size": [int(s) for s in code["size"]], "counts": code["counts"].decode("ascii")} for code in codes]


def encode_whole(mask: NDArray[np.bool_]) -> Rle:
    """One mask (H, W), of which only the columns that it covers are read: quick for a small object of a large image."""
    columns = np.flatnonzero(mask.any(axis=0))
    first, after = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    return _encode_columns(mask[:, first:after], first, mask.shape[1])


def encode_patches(patches: Iterable[tuple[int, int, NDArray[np.bool_]]], height: int, width: int) -> list[Rle]:
    """Masks of `height` x `width` pixels -> codes, each given by the column and row of the top left corner of a patch
    (h, w), and that patch; nothing is set outside. Much faster than `encode` where objects are small."""
    codes: list[Rle] = []
    for x, y, patch in patches:
        columns = np.zeros((height, patch.shape[1]), dtype=bool)
        columns[y : y + patch.shape[0]] = patch
        codes.append(_encode_columns(columns, x, width))
    return codes


def _encode_columns(columns: NDArray[np.bool_], first: int, width: int) -> Rle:
    """A mask of `width` columns: `columns` (H, w) from number `first` on, and nothing else is set."""
    height = columns.shape[0]
    run = np.ascontiguousarray(columns.T).ravel()
    changes = np.flatnonzero(np.diff(run, prepend=False, append=False)) + first * height
    counts = np.diff(np.concatenate([[0], changes, [height * width]]))
    if len(counts) > 1 and counts[-1] == 0:  # the last pixel is set
        counts = counts[:-1]
    code = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def decode(codes: Sequence[Rle]) -> NDArray[np.bool_]:
    """N run-length codes of one size -> masks (N, H, W)."""
    return np.ascontiguousarray(coco.decode(list(codes)).transpose(2, 0, 1)).view(np.bool_)


def decode_whole(code: Rle) -> NDArray[np.bool_]:
    """One code -> its mask (H, W), of which only the box of the object is copied: quick for a large image."""
    mask = np.zeros(code["size"], dtype=bool)
    x, y, width, height = box_of(code)
    mask[y : y + height, x : x + width] = part(code, x, y, width, height)
    return mask


def paste(codes: Sequence[Rle], x: int, y: int, height: int, width: int) -> list[Rle]:
    """Codes of masks of one part of an image -> codes over its `height` x `width` pixels, where (x, y) is the top left
    corner of the part."""
    return encode_patches(((x, y, decode([code])[0]) for code in codes), height, width)


def part(code: Rle, x: int, y: int, width: int, height: int) -> NDArray[np.bool_]:
    """A box of one mask, in pixels (height, width); the rest is not copied."""
    return np.asarray(coco.decode([code])[y : y + height, x : x + width, 0], dtype=bool)


def overlaps(a: Sequence[Rle], b: Sequence[Rle], within_a: bool = False) -> NDArray[np.float64]:
    """IoU of every pair (len(a), len(b)); with `within_a` the share of a's own area that b covers."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return np.asarray(coco.iou(list(a), list(b), [within_a] * len(b)), dtype=np.float64)


def boxes(codes: Sequence[Rle]) -> NDArray[np.float64]:
    """Boxes (N, 4) as x, y, width, height in pixels."""
    return np.asarray(coco.toBbox(list(codes)), dtype=np.float64).reshape(-1, 4)


def box_of(code: Rle) -> tuple[int, int, int, int]:
    """The box of one code as x, y, width and height in pixels; without width and height where nothing is set."""
    x, y, width, height = (int(v) for v in boxes([code])[0])
    return x, y, width, height


def areas(codes: Sequence[Rle]) -> NDArray[np.float64]:
    """Areas (N,) in pixels."""
    return np.asarray(coco.area(list(codes)), dtype=np.float64).reshape(-1)
