"""The instance decoder: SAM's mask decoder with objectness and point proposals, tuned once and then frozen."""

from __future__ import annotations

from typing import cast

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import Tensor, nn

from samif.sam.decode import DecoderAnswer, decode_tokens
from samif.sam.heads import InstanceHeads
from samif.sam.tiny import TinyMaskDecoder


class InstanceDecoder(nn.Module):
    """SAM's frozen prompt encoder, its mask decoder and the instance heads: what SAM-IF tunes once and freezes."""

    def __init__(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        if not isinstance(mask_decoder, TinyMaskDecoder):
            width = int(mask_decoder.transformer_dim)
            self.instance_heads = InstanceHeads(token_dim=width, embedding_dim=width)

    @classmethod
    def of(cls, sam: Sam) -> InstanceDecoder:
        """Take prompt encoder and mask decoder from a SAM; heads that it lacks start at random."""
        return cls(sam.prompt_encoder, sam.mask_decoder)

    @property
    def heads(self) -> InstanceHeads:
        own = self.mask_decoder.instance_heads if isinstance(self.mask_decoder, TinyMaskDecoder) else self.instance_heads
        return cast(InstanceHeads, own)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square, padded picture that prompts refer to."""
        return int(self.prompt_encoder.input_image_size[0])

    def embed_points(self, points: Tensor) -> Tensor:
        """Foreground points (N, 2) as (x, y) in the encoder's frame (pixels of the resized, padded picture)
        -> prompt tokens (N, 2, D): the point and the official padding point."""
        labels = torch.ones(points.shape[0], 1, dtype=torch.int64, device=points.device)
        sparse, _ = self.prompt_encoder(points=(points.unsqueeze(1), labels), boxes=None, masks=None)
        return cast(Tensor, sparse)

    def forward(self, embeddings: Tensor, points: Tensor) -> tuple[DecoderAnswer, Tensor]:
        """Prompt B pictures with P points each.

        Args:
            embeddings: (B, C, h, w).
            points: (B, P, 2), x and y in the encoder's frame.

        Returns:
            The answers, N = B * P in the order of the points, and objectness logits (N,).
        """
        sparse = self.embed_points(points.flatten(0, 1))
        dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        pe = self.prompt_encoder.get_dense_pe()
        answer = decode_tokens(self.mask_decoder, embeddings, pe, sparse, dense)
        return answer, self.heads.score(answer.iou_token, answer.mask_tokens[:, 0])
