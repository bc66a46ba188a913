"""Embedding -> proposals: masks of single objects with their features (SAM-IF, inference, before classification).

Where an encoder has tiles, each of them is prompted like an image of its own, and its small objects join those of the
whole image.

Shape legend: V views of an image, P prompts, N proposals kept, D token width, F pooled width, S semantic width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from samif.config import ProposeParams
from samif.masks.mask_nms import greedy, suppress
from samif.masks.patch_pooling import mean_under
from samif.masks.pooling import pool
from samif.masks.rle import Rle, areas, overlaps, paste
from samif.masks.upscale import encode_upscaled
from samif.sam.decode import ALL_MASKS, SINGLE_MASK
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import Frame, View, grid_points, split_views
from samif.sam.precision import full_float32

CELLS_AT_ONCE = {"cpu": 1 << 15, "cuda": 1 << 20}
"""Prompts times grid cells of one pass through the decoder: more would not fit in a processor's cache, fewer would not
fill a GPU."""
MIN_CELLS = 3
"""A mask of fewer low-resolution cells is noise: it has neither a shape nor features."""

LARGEST_IN_TILE = 0.25
"""Share of the image's longer side: the whole image shows larger objects well enough, and tiles cut them."""
TILE_POINTS = 0.5
"""Prompts of a tile, as a share of those of the whole image."""


@dataclass(frozen=True)
class Proposals:
    """Class-agnostic instances of one image, best first.

    Attributes:
        masks: N run-length codes in image pixels.
        iou: predicted IoU (N,), 0..1.
        objectness: probability (N,) that the mask is one object.
        tokens: mask-token embeddings (N, D).
        pooled: pooled image features (N, F).
        semantic: mean features of the semantic encoder under the masks (N, S); None where there is no such encoder.
    """

    masks: list[Rle]
    iou: NDArray[np.float32]
    objectness: NDArray[np.float32]
    tokens: NDArray[np.float32]
    pooled: NDArray[np.float32]
    semantic: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        rows = {name: len(getattr(self, name)) for name in ("iou", "objectness", "tokens", "pooled")}
        if self.semantic is not None:
            rows["semantic"] = len(self.semantic)
        wrong = {name: count for name, count in rows.items() if count != len(self.masks)}
        if wrong:
            raise ValueError(f"expected {len(self.masks)} rows as there are masks, got {wrong}")

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def quality(self) -> NDArray[np.float32]:
        """Predicted IoU x objectness (N,): how good a mask of a single object each one is."""
        return self.iou * self.objectness

    @cached_property
    def overlap(self) -> NDArray[np.float64]:
        """IoU of every pair of masks (N, N)."""
        return overlaps(self.masks, self.masks)

    @cached_property
    def inside(self) -> NDArray[np.float64]:
        """Share of each mask that each other one covers (N, N)."""
        return overlaps(self.masks, self.masks, within_a=True)

    def take(self, rows: NDArray[np.int64]) -> Proposals:
        """The proposals at these indices, in that order."""
        return Proposals(
            [self.masks[i] for i in rows], self.iou[rows], self.objectness[rows], self.tokens[rows], self.pooled[rows],
            None if self.semantic is None else self.semantic[rows],
        )  # fmt: skip

    def placed(self, view: View, frame: Frame) -> Proposals:
        """Proposals of a view with their masks in the pixels of the whole image."""
        return replace(self, masks=paste(self.masks, view.x, view.y, frame.height, frame.width))

    def with_semantic(self, features: Tensor | None) -> Proposals:
        """The same with semantic features of the image (S, g, g) pooled under each mask; as they are without."""
        return self if features is None else replace(self, semantic=mean_under(features, self.masks))


def prompt_points(decoder: InstanceDecoder, embedding: Tensor, frame: Frame, params: ProposeParams) -> Tensor:
    """Where to prompt an image: (P, 2) in encoder pixels.

    `grid` is the uniform grid of the paper. `points` takes the `params.points` strongest peaks of the proposal map,
    whose values are how deep inside an object each place is.
    """
    if params.prompts == "grid":
        return grid_points(params.grid, frame)
    depth = decoder.heads.centres(embedding.unsqueeze(0))[0]
    cell = decoder.image_size / depth.shape[-1]
    peaks = depth == F.max_pool2d(depth[None], 3, stride=1, padding=1)[0]
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float32, device=depth.device) for n in depth.shape), indexing="ij"
    )
    points = torch.stack([(x.flatten() + 0.5) * cell, (y.flatten() + 0.5) * cell], dim=1)
    allowed = frame.inside(points)
    # peaks first, then other places deep inside: large objects get a second prompt
    rank = depth.flatten() + 100.0 * peaks.flatten() - 1e6 * ~allowed
    best = rank.topk(min(params.points, int(allowed.sum()))).indices
    return points[best]


@dataclass(frozen=True)
class _DecoderOutput:
    """The decoder's output for P prompts: logits (P, r, r), iou (P,), objectness (P,), tokens (P, D)."""

    logits: Tensor
    iou: Tensor
    objectness: Tensor
    tokens: Tensor

    def take(self, rows: Tensor) -> _DecoderOutput:
        return _DecoderOutput(self.logits[rows], self.iou[rows], self.objectness[rows], self.tokens[rows])

    @property
    def large_enough(self) -> Tensor:
        """Which masks have MIN_CELLS or more (P,)."""
        return (self.logits > 0).flatten(1).sum(dim=1) >= MIN_CELLS

    def boxes(self, frame: Frame) -> NDArray[np.float64]:
        """Boxes (P, 4) as x, y, width and height in pixels of the frame's image, to the cell; all masks have cells."""
        masks = self.logits > 0
        ends = []
        for cells in (masks.any(dim=1), masks.any(dim=2)):  # columns, rows
            count = cells.shape[1]
            first, after = cells.int().argmax(dim=1), count - cells.flip(1).int().argmax(dim=1)
            ends.append((first, after - first))
        (x, width), (y, height) = ends
        cell = max(frame.height, frame.width) / masks.shape[-1]
        return np.asarray(torch.stack([x, y, width, height], dim=1).cpu().numpy() * cell, dtype=np.float64)

    def overlap(self) -> NDArray[np.float64]:
        """IoU of every pair of masks (P, P), counted in cells."""
        flat = (self.logits > 0).flatten(1).float()
        both = flat @ flat.T
        area = flat.sum(dim=1)
        iou = both / (area[:, None] + area[None, :] - both).clamp_min(1.0)
        return iou.cpu().numpy().astype(np.float64)

    def proposals(self, embedding: Tensor, frame: Frame) -> Proposals:
        """The same as masks in image pixels, with pooled features."""
        return Proposals(
            encode_upscaled(self.logits.float().cpu().numpy(), frame.height, frame.width),
            self.iou.cpu().numpy(),
            self.objectness.cpu().numpy(),
            self.tokens.cpu().numpy(),
            pool(embedding, (self.logits > 0).float()).cpu().numpy(),
        )


def _decode_prompts(
    decoder: InstanceDecoder,
    embedding: Tensor,
    points: Tensor,
    min_objectness: float = 0.0,
    which: Sequence[int] = SINGLE_MASK,
) -> _DecoderOutput:
    """The output for the points (P, 2) whose objectness is enough, in their order, K masks each of the tokens `which`;
    masks of others are not computed."""
    context = decoder.prepare_image(embedding.unsqueeze(0).float())
    at_once = max(1, CELLS_AT_ONCE[embedding.device.type] // embedding[0].numel())
    rows: list[tuple[Tensor, ...]] = []
    for chunk in torch.split(points.to(embedding.device), at_once):
        output, logits = decoder.run_transformer(context, chunk.unsqueeze(0))
        objectness = logits.sigmoid()
        enough = objectness >= min_objectness
        output = output.take(enough)
        columns = list(which)
        rows.append(
            (
                decoder.predict_masks(context, output, which).flatten(0, 1),
                output.iou[:, columns].flatten(),
                objectness[enough].repeat_interleave(len(columns)),
                output.mask_tokens[:, columns].flatten(0, 1),
            )
        )
    logits, iou, objectness, tokens = (torch.cat(column) for column in zip(*rows, strict=True))
    return _DecoderOutput(logits, iou.clamp(0.0, 1.0), objectness, tokens)


@full_float32()
@torch.inference_mode()
def predict_points(
    decoder: InstanceDecoder, embedding: Tensor, frame: Frame, points: Tensor
) -> tuple[Proposals, NDArray[np.bool_]]:
    """Prompt one image's embedding (C, h, w) with points (P, 2) in encoder pixels; one proposal per point. It
    runs on the decoder's device.

    Returns:
        P proposals in the order of the points, and which of them are large enough (P,).
    """
    embedding = embedding.to(decoder.device)
    outputs = _decode_prompts(decoder, embedding, points)
    proposals = outputs.proposals(embedding, frame)
    return proposals, outputs.large_enough.cpu().numpy() & (areas(proposals.masks) > 0)


def propose(decoder: InstanceDecoder, embedding: Tensor, frame: Frame, params: ProposeParams) -> Proposals:
    """Proposals of one image from its embedding (V * C, h, w), best first: prompted, filtered by objectness, duplicates
    removed. Masks are computed only of objects, and stay at low resolution until duplicates are removed. Of a tile,
    only objects count that are small and not cut by its border. It runs on the decoder's device."""
    (whole, seen), *tiles = split_views(embedding, frame)
    found = _propose_view(decoder, seen, whole.frame, params)
    if not tiles:
        return found
    of_tile = params.model_copy(update={"points": max(1, round(TILE_POINTS * params.points))})
    parts = [found]
    for view, seen in tiles:
        small = _propose_view(decoder, seen, view.frame, of_tile, partial(small_and_whole, view=view, frame=frame))
        parts.append(small.placed(view, frame))
    found = _joined(parts)
    rows = suppress(found.masks, found.quality.astype(np.float64), params.duplicate_iou)
    return found.take(rows[: params.max_proposals])


def small_and_whole(found: NDArray[np.float64], view: View, frame: Frame) -> NDArray[np.bool_]:
    """Which objects a tile answers for: boxes (N, 4) in the tile's pixels, as x, y, width and height -> (N,)."""
    low, high = found[:, :2], found[:, :2] + found[:, 2:]
    size = np.array([view.frame.width, view.frame.height])
    start = np.array([view.x, view.y])
    inner_low, inner_high = start > 0, start + size < np.array([frame.width, frame.height])
    cut = ((low <= 1) & inner_low) | ((high >= size - 1) & inner_high)
    small = found[:, 2:].max(axis=1, initial=0.0) <= LARGEST_IN_TILE * max(frame.height, frame.width)
    return np.asarray(small & ~cut.any(axis=1))


def _joined(parts: Sequence[Proposals]) -> Proposals:
    """Proposals of several views of one image, without semantic features."""
    columns = ("iou", "objectness", "tokens", "pooled")
    return Proposals(
        [mask for part in parts for mask in part.masks],
        *(np.concatenate([getattr(part, name) for part in parts]) for name in columns),
    )


@full_float32()
@torch.inference_mode()
def _propose_view(
    decoder: InstanceDecoder,
    embedding: Tensor,
    frame: Frame,
    params: ProposeParams,
    wanted: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None,
) -> Proposals:
    """The proposals of one view from its embedding (C, h, w), best first; only those whose boxes are `wanted`."""
    embedding = embedding.to(decoder.device)
    points = prompt_points(decoder, embedding.float(), frame, params)
    which = ALL_MASKS if params.multimask else SINGLE_MASK
    outputs = _decode_prompts(decoder, embedding, points, params.min_objectness, which)
    outputs = outputs.take(outputs.large_enough)
    if wanted is not None:
        outputs = outputs.take(torch.from_numpy(wanted(outputs.boxes(frame))).to(embedding.device))
    quality = (outputs.iou * outputs.objectness).cpu().numpy().astype(np.float64)
    kept = greedy(outputs.overlap(), quality, params.duplicate_iou)[: params.max_proposals]
    if not len(kept):
        return _nothing(decoder, embedding)
    proposals = outputs.take(torch.from_numpy(kept).to(embedding.device)).proposals(embedding, frame)
    proposals = proposals.take(np.flatnonzero(areas(proposals.masks) > 0))
    # cells are coarse: masks that were apart there may be one in pixels
    return proposals.take(suppress(proposals.masks, proposals.quality.astype(np.float64), params.duplicate_iou))


def _nothing(decoder: InstanceDecoder, embedding: Tensor) -> Proposals:
    none = np.zeros(0, dtype=np.float32)
    width = pool(embedding, torch.zeros(1, 4, 4, device=embedding.device)).shape[1]
    tokens = np.zeros((0, decoder.mask_decoder.transformer_dim), dtype=np.float32)
    return Proposals([], none, none, tokens, np.zeros((0, width), dtype=np.float32))
