"""The official mask decoder's forward pass over many images and many prompts at once.

The official `predict_masks` takes one image per call, throws its tokens away and draws every mask; here prompts are
batched over images, the tokens are kept, because they are features of the instance (SAM-IF, classifier input), and
masks are drawn only of those prompts and tokens that somebody wants.

Shape legend: B images, P prompts each, N = B * P, C embedding channels, D token width, T tokens of a prompt,
K = 4 mask tokens (index 0 the single mask, 1-3 the multimask tokens), (h, w) the embedding grid, L = h * w,
(4h, 4w) low-resolution masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor
from torch.nn import functional as F

from samif.sam.transformer import ImageSide, image_side, transform

ALL_MASKS = (0, 1, 2, 3)
SINGLE_MASK = (0,)


@runtime_checkable
class DetailedDecoder(Protocol):
    """A mask decoder whose embedding carries fine channels beside those that the transformer attends to."""

    def core(self, embeddings: Tensor) -> Tensor: ...

    def upscale(self, src: Tensor, embeddings: Tensor, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ImageContext:
    """Embeddings (B, C, h, w) made ready for prompts. Where dense prompts differ, `side` has N sources, not B."""

    embeddings: Tensor
    side: ImageSide


@dataclass(frozen=True)
class TokenAnswer:
    """What the decoder says before a mask is drawn.

    `iou` (N, K), `iou_token` (N, D), `mask_tokens` (N, K, D), `cells` (N, L, D) the image as each prompt sees it,
    `image` (N,) the row of its embedding.
    """

    iou: Tensor
    iou_token: Tensor
    mask_tokens: Tensor
    cells: Tensor
    image: Tensor

    def take(self, rows: Tensor) -> TokenAnswer:
        """The answers to some prompts, by index or by a boolean per prompt."""
        return TokenAnswer(
            self.iou[rows], self.iou_token[rows], self.mask_tokens[rows], self.cells[rows], self.image[rows]
        )


@dataclass(frozen=True)
class DecoderAnswer:
    """`masks` logits (N, M, 4h, 4w), `iou` (N, M), `iou_token` (N, D), `mask_tokens` (N, M, D) of M mask tokens."""

    masks: Tensor
    iou: Tensor
    iou_token: Tensor
    mask_tokens: Tensor


def prepare_image(decoder: MaskDecoder, embeddings: Tensor, image_pe: Tensor, dense: Tensor) -> ImageContext:
    """Do once per image what all its prompts share.

    Args:
        embeddings: (B, C, h, w).
        image_pe: (1, D, h, w).
        dense: (N, D, h, w), or (1, D, h, w) where all prompts share it.
    """
    core = decoder.core(embeddings) if isinstance(decoder, DetailedDecoder) else embeddings
    if dense.shape[0] > 1:
        core = core.repeat_interleave(dense.shape[0] // core.shape[0], dim=0)
    cells = (core + dense).flatten(2).transpose(1, 2).contiguous()
    return ImageContext(embeddings, image_side(decoder.transformer, cells, image_pe[0].flatten(1).T.contiguous()))


def run_transformer(decoder: MaskDecoder, context: ImageContext, sparse: Tensor) -> TokenAnswer:
    """Run the two-way transformer on prompt tokens `sparse` (N, t, D), the prompts of one image together."""
    count, known = sparse.shape[0], context.embeddings.shape[0]
    fixed = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight], dim=0)
    tokens = torch.cat([fixed.unsqueeze(0).expand(count, -1, -1), sparse], dim=1)
    queries, cells = transform(decoder.transformer, context.side, tokens)
    image = torch.arange(known, device=sparse.device).repeat_interleave(count // known)
    iou_token = queries[:, 0]
    return TokenAnswer(
        decoder.iou_prediction_head(iou_token), iou_token, queries[:, 1 : 1 + decoder.num_mask_tokens], cells, image
    )


def predict_masks(decoder: MaskDecoder, context: ImageContext, answer: TokenAnswer, which: Sequence[int]) -> Tensor:
    """Mask logits (N, M, 4h, 4w) of the M mask tokens `which`."""
    tokens = answer.mask_tokens
    weights = torch.stack([decoder.output_hypernetworks_mlps[i](tokens[:, i]) for i in which], dim=1)
    h, w = context.embeddings.shape[-2:]
    if not isinstance(decoder, DetailedDecoder):
        return _predict_masks_official(decoder, answer.cells, weights, (h, w))
    plane = answer.cells.transpose(1, 2).reshape(-1, answer.cells.shape[-1], h, w)
    upscaled = decoder.upscale(plane, context.embeddings, answer.image)
    return (weights @ upscaled.flatten(2)).view(*weights.shape[:2], *upscaled.shape[-2:])


def decode_tokens(
    decoder: MaskDecoder,
    embeddings: Tensor,
    image_pe: Tensor,
    sparse: Tensor,
    dense: Tensor,
    which: Sequence[int] = ALL_MASKS,
) -> DecoderAnswer:
    """All three steps at once; arguments as theirs."""
    context = prepare_image(decoder, embeddings, image_pe, dense)
    answer = run_transformer(decoder, context, sparse)
    some = list(which)
    masks = predict_masks(decoder, context, answer, some)
    return DecoderAnswer(masks, answer.iou[:, some], answer.iou_token, answer.mask_tokens[:, some])


def _predict_masks_official(decoder: MaskDecoder, cells: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells (N, L, D) and hypernetwork weights (N, M, D / 8) -> masks (N, M, 4h, 4w).

    The official upscaling is two transposed convolutions whose step is their size, so each cell's four children come
    from a linear map of it alone. Channels stay last, where normalisation is quick, and children stay beside their
    parent: only the finished masks are put in order, not 32 channels of them.
    """
    first, norm, _, second, _ = decoder.output_upscaling
    children = F.linear(cells, _children_of(first.weight), first.bias.repeat(4))
    children = children.view(*cells.shape[:2], 4, -1)
    children = F.gelu(F.layer_norm(children, children.shape[-1:], norm.weight, norm.bias, norm.eps))
    grandchildren = F.gelu(F.linear(children, _children_of(second.weight), second.bias.repeat(4)))
    flat = grandchildren.reshape(len(cells), -1, weights.shape[-1])
    (h, w), (n, m, _) = grid, weights.shape
    masks = (weights @ flat.transpose(1, 2)).view(n, m, h, w, 2, 2, 2, 2)
    return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(n, m, 4 * h, 4 * w)


def _children_of(weight: Tensor) -> Tensor:
    """A transposed convolution's weight (in, out, 2, 2) -> the linear map (4 * out, in) to the four children."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2)
