"""The official mask decoder's forward pass over many pictures and many prompts at once.

The official `predict_masks` takes one picture per call and throws its tokens away; here prompts are batched
over pictures and the tokens are kept, because they are features of the instance (SAM-IF, classifier input).

Shape legend: B pictures, P prompts each, N = B * P, C embedding channels, D token width, M = 4 masks
(index 0 the single-mask token, 1-3 the multimask tokens), (h, w) the embedding grid, (4h, 4w) low-resolution masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor


@runtime_checkable
class DetailedDecoder(Protocol):
    """A mask decoder whose embedding carries fine channels beside those that the transformer attends to."""

    def core(self, embeddings: Tensor) -> Tensor: ...

    def upscale(self, src: Tensor, embeddings: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class DecoderAnswer:
    """`masks` logits (N, M, 4h, 4w), `iou` (N, M), `iou_token` (N, D), `mask_tokens` (N, M, D)."""

    masks: Tensor
    iou: Tensor
    iou_token: Tensor
    mask_tokens: Tensor


def decode_tokens(
    decoder: MaskDecoder, embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
) -> DecoderAnswer:
    """Run the official two-way transformer and hypernetworks on prompts of several pictures.

    Args:
        embeddings: (B, C, h, w).
        image_pe: (1, D, h, w).
        sparse: (N, T, D) prompt tokens, the prompts of one picture together.
        dense: (N, D, h, w), or (1, D, h, w) where all prompts share it.
    """
    prompts = sparse.shape[0] // embeddings.shape[0]
    fixed = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight], dim=0)
    tokens = torch.cat([fixed.unsqueeze(0).expand(sparse.shape[0], -1, -1), sparse], dim=1)
    core = decoder.core(embeddings) if isinstance(decoder, DetailedDecoder) else embeddings
    src = core.repeat_interleave(prompts, dim=0) + dense
    pe = image_pe.expand(src.shape[0], -1, -1, -1)
    queries, keys = decoder.transformer(src, pe, tokens)
    iou_token = queries[:, 0]
    mask_tokens = queries[:, 1 : 1 + decoder.num_mask_tokens]
    plane = keys.transpose(1, 2).reshape(src.shape)
    if isinstance(decoder, DetailedDecoder):
        upscaled = decoder.upscale(plane, embeddings)
    else:
        upscaled = decoder.output_upscaling(plane)
    weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    masks = (weights @ upscaled.flatten(2)).reshape(*weights.shape[:2], *upscaled.shape[-2:])
    return DecoderAnswer(masks, decoder.iou_prediction_head(iou_token), iou_token, mask_tokens)
