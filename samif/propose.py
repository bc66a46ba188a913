"""Embedding -> proposals: masks of single objects with their features (SAM-IF, inference, before classification).

Shape legend: P prompts, N proposals kept, D token width, F pooled width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from samif.config import ProposeParams
from samif.masks.duplicates import suppress
from samif.masks.pooling import pool
from samif.masks.rle import Rle, encode
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import Frame, grid_points

PROMPTS_AT_ONCE = 64
MIN_CELLS = 3
"""A mask of fewer low-resolution cells is noise: it has neither a shape nor features."""


@dataclass(frozen=True)
class Proposals:
    """Class-agnostic instances of one picture, best first.

    Attributes:
        masks: N run-length codes in picture pixels.
        iou: predicted IoU (N,), 0..1.
        objectness: probability (N,) that the mask is one object.
        tokens: mask-token embeddings (N, D).
        pooled: pooled image features (N, F).
    """

    masks: list[Rle]
    iou: NDArray[np.float32]
    objectness: NDArray[np.float32]
    tokens: NDArray[np.float32]
    pooled: NDArray[np.float32]

    def __post_init__(self) -> None:
        rows = {name: len(getattr(self, name)) for name in ("iou", "objectness", "tokens", "pooled")}
        wrong = {name: count for name, count in rows.items() if count != len(self.masks)}
        if wrong:
            raise ValueError(f"expected {len(self.masks)} rows as there are masks, got {wrong}")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def quality(self) -> NDArray[np.float32]:
        """Predicted IoU x objectness (N,): how good a mask of a single object each one is."""
        return self.iou * self.objectness

    def take(self, rows: NDArray[np.int64]) -> Proposals:
        """The proposals at these indices, in that order."""
        return Proposals(
            [self.masks[i] for i in rows], self.iou[rows], self.objectness[rows], self.tokens[rows], self.pooled[rows]
        )


def prompt_points(decoder: InstanceDecoder, embedding: Tensor, frame: Frame, params: ProposeParams) -> Tensor:
    """Where to prompt a picture: (P, 2) in encoder pixels.

    `grid` is the uniform grid of the paper. `points` takes the `params.points` strongest peaks of the proposal map,
    which says how deep inside an object each place is.
    """
    if params.prompts == "grid":
        return grid_points(params.grid, frame)
    depth = decoder.heads.centres(embedding.unsqueeze(0))[0]
    cell = decoder.image_size / depth.shape[-1]
    peaks = depth == F.max_pool2d(depth[None], 3, stride=1, padding=1)[0]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in depth.shape), indexing="ij")
    points = torch.stack([(x.flatten() + 0.5) * cell, (y.flatten() + 0.5) * cell], dim=1)
    allowed = frame.inside(points)
    # peaks first, then whatever else is deep inside: big objects deserve a second prompt
    rank = depth.flatten() + 100.0 * peaks.flatten() - 1e6 * ~allowed
    best = rank.topk(min(params.points, int(allowed.sum()))).indices
    return points[best]


@torch.inference_mode()
def answer_points(
    decoder: InstanceDecoder, embedding: Tensor, frame: Frame, points: Tensor
) -> tuple[Proposals, NDArray[np.bool_]]:
    """Prompt one picture's embedding (C, h, w) with points (P, 2) in encoder pixels; one proposal per point.

    Returns:
        P proposals in the order of the points, and which of them are large enough to be something (P,).
    """
    rows: list[tuple[Tensor, ...]] = []
    for chunk in torch.split(points, PROMPTS_AT_ONCE):
        answer, objectness = decoder(embedding.unsqueeze(0).float(), chunk.unsqueeze(0))
        rows.append((answer.masks[:, 0], answer.iou[:, 0], objectness, answer.mask_tokens[:, 0]))
    logits, iou, objectness, tokens = (torch.cat(column) for column in zip(*rows, strict=True))
    cells = (logits > 0).flatten(1).sum(dim=1)
    full = frame.full_masks(logits)
    usable = ((cells >= MIN_CELLS) & full.flatten(1).any(dim=1)).numpy()
    proposals = Proposals(
        encode(full.numpy()),
        iou.clamp(0.0, 1.0).numpy(),
        objectness.sigmoid().numpy(),
        tokens.numpy(),
        pool(embedding, (logits > 0).float()).numpy(),
    )
    return proposals, usable


def propose(decoder: InstanceDecoder, embedding: Tensor, frame: Frame, params: ProposeParams) -> Proposals:
    """Proposals of one picture from its embedding (C, h, w): prompted, filtered by objectness, duplicates removed."""
    with torch.inference_mode():
        points = prompt_points(decoder, embedding.float(), frame, params)
    proposals, usable = answer_points(decoder, embedding, frame, points)
    proposals = proposals.take(np.flatnonzero(usable & (proposals.objectness >= params.min_objectness)))
    kept = suppress(proposals.masks, proposals.quality.astype(np.float64), params.duplicate_iou)
    return proposals.take(kept[: params.max_proposals])
