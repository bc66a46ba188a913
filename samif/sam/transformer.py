"""The official two-way transformer over many prompts of a few images, without the work that prompts share.

The official module repeats an image's embedding for every prompt and projects it anew each time. Here
- the first layer, in which every prompt of an image meets the same embedding, projects it once per image;
- later, where each prompt has an embedding of its own, the projections are folded into the few tokens instead of being
  applied to the many cells: q (W k)^T = (q W) k^T. Eight heads of seven tokens are 56 rows, fewer than the 128 columns
  that the official module makes of every cell, twice.
The result is the same up to rounding, and gradients flow through it.

Shape legend: S sources (images, or prompts whose dense prompts differ), N prompts, P = N / S, T tokens of a prompt,
L cells of the embedding, D token width, I inner width of an attention, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from segment_anything.modeling.transformer import Attention, TwoWayTransformer
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ImageSide:
    """What all prompts of a source share: `cells` (S, L, D), positions `pe` (L, D), and the first layer's projections
    `keys`, `values` (S, H, L, I / H) of cells to tokens and `queries` (S, L, I) of cells."""

    cells: Tensor
    pe: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor


def image_side(transformer: TwoWayTransformer, cells: Tensor, pe: Tensor) -> ImageSide:
    """Project `cells` (S, L, D) for the first layer, once; `pe` (L, D)."""
    block = transformer.layers[0]
    key_with_pe = cells + pe
    to_image = block.cross_attn_token_to_image
    keys, values = (_split(x, to_image.num_heads) for x in (to_image.k_proj(key_with_pe), to_image.v_proj(cells)))
    return ImageSide(cells, pe, keys, values, block.cross_attn_image_to_token.q_proj(key_with_pe))


def transform(transformer: TwoWayTransformer, side: ImageSide, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (N, T, D), those of one source together -> tokens (N, T, D) and cells (N, L, D)."""
    queries, cells, key_with_pe = tokens, side.cells, side.cells
    for index, block in enumerate(transformer.layers):
        if block.skip_first_layer_pe:
            queries = block.self_attn(q=queries, k=queries, v=queries)
        else:
            query_with_pe = queries + tokens
            queries = queries + block.self_attn(q=query_with_pe, k=query_with_pe, v=queries)
        queries = block.norm1(queries)
        first, attention = index == 0, block.cross_attn_token_to_image
        query_with_pe = queries + tokens
        found = (
            _cross_attend_shared(attention, query_with_pe, side)
            if first
            else _cross_attend(attention, query_with_pe, key_with_pe, cells)
        )
        queries = block.norm2(queries + found)
        queries = block.norm3(queries + block.mlp(queries))
        attention, query_with_pe = block.cross_attn_image_to_token, queries + tokens
        scores = (
            _shared_scores(attention, query_with_pe, side)
            if first
            else _own_scores(attention, query_with_pe, key_with_pe)
        )
        cells = block.norm4(_update_image_tokens(attention, scores, queries, cells))
        key_with_pe = cells + side.pe
    found = _cross_attend(transformer.final_attn_token_to_image, queries + tokens, key_with_pe, cells)
    answer: Tensor = transformer.norm_final_attn(queries + found)
    return answer, cells


def _cross_attend_shared(attention: Attention, query_with_pe: Tensor, side: ImageSide) -> Tensor:
    """Tokens (N, T, D) attend to the cells that they share -> (N, T, D)."""
    (n, t, _), heads = query_with_pe.shape, attention.num_heads
    sources = side.keys.shape[0]
    queries = _split(attention.q_proj(query_with_pe).reshape(sources, n // sources * t, -1), heads)
    found = F.scaled_dot_product_attention(queries, side.keys, side.values)
    answer: Tensor = attention.out_proj(found.transpose(1, 2).reshape(n, t, -1))
    return answer


def _cross_attend(attention: Attention, query_with_pe: Tensor, key_with_pe: Tensor, cells: Tensor) -> Tensor:
    """Tokens (N, T, D) attend to cells of their own (N, L, D) -> (N, T, D).

    The bias of keys shifts all scores of a token alike and falls out of the softmax.
    """
    (n, t, _), heads = query_with_pe.shape, attention.num_heads
    queries = _split(attention.q_proj(query_with_pe), heads) @ _heads_of(attention.k_proj.weight, heads)
    scores = (_flat(queries) / _root(attention)) @ key_with_pe.transpose(1, 2)
    seen = (scores.softmax(dim=-1) @ cells).view(n, heads, t, -1)
    found = seen @ _heads_of(attention.v_proj.weight, heads).transpose(1, 2)
    answer: Tensor = attention.out_proj(found.transpose(1, 2).reshape(n, t, -1) + attention.v_proj.bias)
    return answer


def _shared_scores(attention: Attention, query_with_pe: Tensor, side: ImageSide) -> Tensor:
    """Scores (N, H * T, L) of shared cells against tokens (N, T, D).

    Each token's key stands in the columns of its head, zeros in the others: one product then gives all heads' scores
    in the order in which they are used.
    """
    (n, t, _), heads = query_with_pe.shape, attention.num_heads
    keys = attention.k_proj(query_with_pe).view(n, 1, t, heads, -1) / _root(attention)
    own = torch.eye(heads, dtype=keys.dtype, device=keys.device).view(1, heads, 1, heads, 1)
    sources = side.queries.shape[0]
    spread = (keys * own).reshape(sources, n // sources * heads * t, -1)
    scores: Tensor = spread @ side.queries.transpose(1, 2)
    return scores.view(n, heads * t, -1)


def _own_scores(attention: Attention, query_with_pe: Tensor, key_with_pe: Tensor) -> Tensor:
    """Scores (N, H * T, L) of cells of their own (N, L, D) against tokens (N, T, D)."""
    heads = attention.num_heads
    keys = _split(attention.k_proj(query_with_pe), heads) / _root(attention)
    bias = keys @ attention.q_proj.bias.view(heads, -1, 1)
    return _flat(keys @ _heads_of(attention.q_proj.weight, heads)) @ key_with_pe.transpose(1, 2) + _flat(bias)


def _update_image_tokens(attention: Attention, scores: Tensor, queries: Tensor, cells: Tensor) -> Tensor:
    """Cells (S or N, L, D) plus what they attend to in their prompt's tokens (N, T, D) -> (N, L, D)."""
    (n, t, _), heads = queries.shape, attention.num_heads
    weights = scores.view(n, heads, t, -1).softmax(dim=2).flatten(1, 2)
    values = _split(attention.v_proj(queries), heads) @ _heads_of(attention.out_proj.weight.T, heads)
    # the weights of a head sum to one, so that the heads' shares of the bias do
    told = _flat(values + attention.out_proj.bias / heads)
    own = cells.unsqueeze(1).expand(-1, n // cells.shape[0], -1, -1).reshape(n, *cells.shape[1:])
    return torch.baddbmm(own, weights.transpose(1, 2), told)


def _split(x: Tensor, heads: int) -> Tensor:
    """(S, L, I) or (N, T, I) -> (S, H, L, I / H) or (N, H, T, I / H)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def _heads_of(weight: Tensor, heads: int) -> Tensor:
    """A projection's weight (I, D) -> (H, I / H, D)."""
    return weight.view(heads, -1, weight.shape[1])


def _flat(x: Tensor) -> Tensor:
    """(N, H, T, X) -> (N, H * T, X)."""
    return x.flatten(1, 2)


def _root(attention: Attention) -> float:
    return math.sqrt(attention.internal_dim // attention.num_heads)
