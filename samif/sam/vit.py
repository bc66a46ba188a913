"""The official image encoder's forward pass, arranged for speed: same weights, same answer, less work.

What differs from `segment_anything.modeling.image_encoder`:
- attention never holds its (tokens x tokens) scores at once: they are made, biased, normalised and used in tiles that
  stay in the CPU's cache; on a GPU one fused kernel does the same;
- windows are padded after the projection to q, k and v and cropped before the one back, so padding costs no products;
- matrices are multiplied in the chosen precision, while the residual stream and its normalisation stay in float32.

Shape legend: B images, (H, W) token grid, C width, G = windows or images x heads, (h, w) grid of one window,
D width of a head.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 1 << 20
"""Scores of one tile: 2 MiB in bfloat16, about what a core keeps near itself."""
NARROW = 32
"""Windows with sides up to this take their positions as further columns of q and k (see `_tiled`)."""


Layer = TypeVar("Layer", bound=nn.Module)


class FastViT(nn.Module):
    """The image encoder of an official SAM.

    Args:
        vit: the official module; its weights are shared where the precision is theirs, and copied otherwise.
        dtype: of the matrix products, float32 or bfloat16.
    """

    def __init__(self, vit: ImageEncoderViT, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.patch, self.pos_embed = _cast(vit.patch_embed.proj, dtype), vit.pos_embed
        grid = (int(vit.pos_embed.shape[1]), int(vit.pos_embed.shape[2]))
        self.blocks = nn.ModuleList(_FastBlock(block, grid, dtype) for block in vit.blocks)
        self.neck = nn.Sequential(
            *(_cast(layer, dtype) if isinstance(layer, nn.Conv2d) else layer for layer in vit.neck)
        )
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), normalised, float32 -> embeddings (B, 256, S / 16, S / 16) float32."""
        # laid out as the blocks read it: a permuted stream would be copied at each normalisation, and its views of
        # q, k and v in each tile
        tokens = self.patch(images.to(self.dtype)).permute(0, 2, 3, 1).float().contiguous() + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        plane: Tensor = tokens.permute(0, 3, 1, 2)
        for layer in self.neck:
            plane = layer(plane.to(self.dtype)).float() if isinstance(layer, nn.Conv2d) else layer(plane)
        return plane


class _FastBlock(nn.Module):
    """One transformer block: attention in windows or over the whole grid, then the MLP."""

    def __init__(self, block: Block, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.window = int(block.window_size)
        self.attention = _FastAttention(block.attn, (self.window, self.window) if self.window else grid, dtype)
        self.lin1, self.lin2 = _cast(block.mlp.lin1, dtype), _cast(block.mlp.lin2, dtype)
        self.act = block.mlp.act

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) float32 -> the same."""
        tokens = tokens + self.attention(self.norm1(tokens).to(self.dtype), self.window)
        change: Tensor = self.lin2(self.act(self.lin1(self.norm2(tokens).to(self.dtype))))
        return tokens + change


class _FastAttention(nn.Module):
    """Multi-head attention with decomposed relative positions (Li et al., "Exploring plain ViT backbones", 2022)."""

    rows: Tensor
    columns: Tensor

    def __init__(self, attention: Attention, grid: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.scale, self.grid = int(attention.num_heads), float(attention.scale), grid
        self.qkv, self.proj = _cast(attention.qkv, dtype), _cast(attention.proj, dtype)
        # (h, h, D) and (w, w, D): one vector per row of a query and row of a key, and the same for columns
        self.register_buffer("rows", get_rel_pos(grid[0], grid[0], attention.rel_pos_h.detach()).to(dtype), False)
        self.register_buffer("columns", get_rel_pos(grid[1], grid[1], attention.rel_pos_w.detach()).to(dtype), False)

    def forward(self, tokens: Tensor, window: int) -> Tensor:
        """(B, H, W, C) -> the same."""
        b, height, width, c = tokens.shape
        h, w = self.grid
        qkv = self.qkv(tokens)
        if window:
            # the official padding is zeros before this product, which makes them its bias
            qkv = _pad(qkv, self.qkv.bias, window)
            down, across = qkv.shape[1] // h, qkv.shape[2] // w
            qkv = qkv.view(b, down, h, across, w, 3, self.heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
        else:
            down = across = 1
            qkv = qkv.view(b, h, w, 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5)
        q, k, v = qkv.reshape(3, -1, h * w, c // self.heads).contiguous().unbind(0)
        out = self._attend(q, k, v).view(b, down, across, self.heads, h, w, -1)
        out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, down * h, across * w, c)
        # contiguous, or the product would be taken row by row of the grid, with a copy of the weights for each
        return cast(Tensor, self.proj(out[:, :height, :width].contiguous()))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (G, h * w, D) -> (G, h * w, D)."""
        h, w = self.grid
        grid = q.view(-1, h, w, q.shape[-1])
        by_row = torch.einsum("ghwd,hkd->ghwk", grid, self.rows).reshape(-1, h * w, h)
        by_column = torch.einsum("ghwd,wkd->ghwk", grid, self.columns).reshape(-1, h * w, w)
        if q.is_cuda:
            return _fused(q, k, v, by_row, by_column, self.scale, self.heads)
        return _tiled(q * self.scale, k, v, by_row, by_column)


def _tiled(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """softmax(q k^T + positions) v, tile by tile.

    Positions are added to a tile of scores. Where rows of keys are short, such additions run at a fraction of memory
    speed, and it is cheaper to multiply them in: q gets its position scores as columns, k which row and column it is.
    """
    groups, length, _ = q.shape
    rows, columns = by_row.shape[-1], by_column.shape[-1]
    narrow = max(rows, columns) <= NARROW
    if narrow:
        at = torch.arange(length, device=q.device)
        place = torch.cat([F.one_hot(at // columns, rows), F.one_hot(at % columns, columns)], dim=1).to(q.dtype)
        q = torch.cat([q, by_row, by_column], dim=-1)
        k = torch.cat([k, place.expand(groups, -1, -1)], dim=-1)
    k = k.transpose(1, 2).contiguous()  # once, or each tile's product would copy it
    out = torch.empty_like(v)
    some = max(1, TILE // (length * length))
    queries = length if some > 1 else max(columns, TILE // length // columns * columns)
    for group in range(0, groups, some):
        these = slice(group, group + some)
        for start in range(0, length, queries):
            part = slice(start, start + queries)
            scores = torch.bmm(q[these, part], k[these])
            if not narrow:
                tile = scores.view(*scores.shape[:2], rows, columns)
                tile += by_row[these, part, :, None]
                tile += by_column[these, part, None, :]
            out[these, part] = torch.bmm(scores.softmax(dim=-1), v[these])
    return out


def _fused(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor, scale: float, heads: int) -> Tensor:
    """The same by one fused kernel that takes the positions as a bias."""
    bias = (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(-2)
    q, k, v, bias = (x.view(-1, heads, *x.shape[1:]) for x in (q, k, v, bias))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale).flatten(0, 1)


def _pad(plane: Tensor, value: Tensor, window: int) -> Tensor:
    """(B, H, W, C), right and bottom filled with `value` (C,) up to multiples of `window`."""
    b, height, width, c = plane.shape
    full = [-(-side // window) * window for side in (height, width)]
    if full == [height, width]:
        return plane
    out = value.expand(b, *full, c).contiguous()
    out[:, :height, :width] = plane
    return out


def _cast(layer: Layer, dtype: torch.dtype) -> Layer:
    return layer if dtype == torch.float32 else copy.deepcopy(layer).to(dtype)
