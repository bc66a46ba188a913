"""Image features pooled under masks, at every scale that an embedding carries.

Shape legend: P masks of one image, C embedding channels, (h, w) its grid, r the resolution of soft masks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from samif.sam.compact import CORE, DECODED, detail_planes
from samif.sam.photo import DEEP
from samif.sam.photo import GRID as PHOTO_GRID
from samif.sam.tiny import GRID as TINY_GRID

MASKS_AT_ONCE = 32
"""Of the official map, 128 MiB on a GPU."""


def planes(embeddings: Tensor) -> list[Tensor]:
    """The feature maps in an embedding (B, C, h, w): the official map, or those that a compact one holds.

    Compact embeddings (`samif.sam.compact`) are recognised by their shape. That of `photo` has the backbone's deep
    features as its last map, at half the grid.
    """
    shape = tuple(embeddings.shape[1:3])
    if shape == (DECODED, TINY_GRID):
        return [embeddings[:, :CORE], *detail_planes(embeddings)]
    if shape == (DECODED + DEEP // 4, PHOTO_GRID):
        return [embeddings[:, :CORE], *detail_planes(embeddings), F.pixel_unshuffle(embeddings[:, DECODED:], 2)]
    return [embeddings]


def pool(embedding: Tensor, masks: Tensor) -> Tensor:
    """Mean, standard deviation and maximum of each feature map under each mask.

    Args:
        embedding: (C, h, w) of one image.
        masks: soft masks (P, r, r) in 0..1 over the padded square.

    Returns:
        (P, 3 * sum of the maps' channels). A mask smaller than a cell is weighed by the share that it covers, so
        thin and small objects keep their features.
    """
    parts: list[Tensor] = []
    for plane in planes(embedding.unsqueeze(0)):
        values = plane[0].float().flatten(1)
        cover = F.adaptive_avg_pool2d(masks.unsqueeze(1).float(), (plane.shape[-2], plane.shape[-1])).flatten(1)
        weight = cover / cover.sum(dim=1, keepdim=True).clamp_min(1e-6)
        mean = weight @ values.T
        spread = (weight @ (values**2).T - mean**2).clamp_min(0.0).sqrt()
        # cells that the mask covers at least half as well as its best-covered cell
        inner = cover >= 0.5 * cover.amax(dim=1, keepdim=True)
        top = torch.stack([values[:, row].amax(dim=1) for row in inner]) if values.is_cpu else _largest(values, inner)
        parts += [mean, spread, top]
    return torch.cat(parts, dim=1)


def _largest(values: Tensor, inner: Tensor) -> Tensor:
    """The greatest of values (C, L) under each row of `inner` (P, L) -> (P, C).

    For a GPU, which would be waited for whenever a mask's cells are chosen; on a CPU the cells in between cost more.
    """
    some = torch.split(inner.unsqueeze(1), MASKS_AT_ONCE)
    return torch.cat([values.masked_fill(~rows, -torch.inf).amax(dim=-1) for rows in some])
