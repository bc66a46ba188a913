"""The instance decoder: SAM's mask decoder with objectness and point proposals, fine-tuned once and then frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from samif.errors import IntegrityError, ObjectMissing
from samif.io import files
from samif.sam.compact import CompactMaskDecoder
from samif.sam.decode import (
    ALL_MASKS,
    SINGLE_MASK,
    DecoderAnswer,
    ImageContext,
    TokenAnswer,
    decode_tokens,
    predict_masks,
    prepare_image,
    run_transformer,
)
from samif.sam.heads import InstanceHeads
from samif.sam.photo import build_photo
from samif.sam.tiny import build_tiny

COMPACT = {"tiny": build_tiny, "photo": build_photo}
"""The architectures whose decoder is the compact one."""


class InstanceDecoder(nn.Module):
    """SAM's frozen prompt encoder, its mask decoder and the instance heads: what SAM-IF fine-tunes once and freezes."""

    def __init__(self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        if not isinstance(mask_decoder, CompactMaskDecoder):
            width = int(mask_decoder.transformer_dim)
            self.instance_heads = InstanceHeads(token_dim=width, embedding_dim=width)

    @classmethod
    def of(cls, sam: Sam) -> InstanceDecoder:
        """Take prompt encoder and mask decoder from a SAM; heads that it lacks start at random."""
        return cls(sam.prompt_encoder, sam.mask_decoder)

    @property
    def heads(self) -> InstanceHeads:
        """Objectness and point proposals; the compact mask decoder brings its own."""
        decoder = self.mask_decoder
        return decoder.instance_heads if isinstance(decoder, CompactMaskDecoder) else self.instance_heads

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @property
    def image_size(self) -> int:
        """Side in pixels of the square, padded image that prompts refer to."""
        return int(self.prompt_encoder.input_image_size[0])

    def embed_points(self, points: Tensor) -> Tensor:
        """Foreground points (N, 2) as (x, y) in the encoder's frame (pixels of the resized, padded image)
        -> prompt tokens (N, 2, D): the point and the official padding point."""
        labels = torch.ones(points.shape[0], 1, dtype=torch.int64, device=points.device)
        sparse, _ = self.prompt_encoder(points=(points.unsqueeze(1), labels), boxes=None, masks=None)
        return cast(Tensor, sparse)

    def prepare_image(self, embeddings: Tensor) -> ImageContext:
        """Embeddings (B, C, h, w) made ready for prompts: what prompts share is done once."""
        return prepare_image(self.mask_decoder, embeddings, self.prompt_encoder.get_dense_pe(), self._no_mask)

    def run_transformer(self, context: ImageContext, points: Tensor) -> tuple[TokenAnswer, Tensor]:
        """Prompt B images with P points each, x and y in the encoder's frame (B, P, 2).

        Returns:
            The answers without masks, N = B * P in the order of the points, and objectness logits (N,).
        """
        answer = run_transformer(self.mask_decoder, context, self.embed_points(points.flatten(0, 1)))
        return answer, self.heads.score(answer.iou_token, answer.mask_tokens[:, 0])

    def predict_masks(self, context: ImageContext, answer: TokenAnswer, which: Sequence[int] = SINGLE_MASK) -> Tensor:
        """The masks of the tokens `which` of each answer, logits (N, K, 4h, 4w)."""
        return predict_masks(self.mask_decoder, context, answer, which)

    def forward(
        self, embeddings: Tensor, points: Tensor, which: Sequence[int] = ALL_MASKS
    ) -> tuple[DecoderAnswer, Tensor]:
        """Prompt B images with P points each, and draw the masks of the tokens `which`, the single mask among them.

        Args:
            embeddings: (B, C, h, w).
            points: (B, P, 2), x and y in the encoder's frame.

        Returns:
            The answers, N = B * P in the order of the points, and objectness logits (N,).
        """
        sparse = self.embed_points(points.flatten(0, 1))
        pe, dense = self.prompt_encoder.get_dense_pe(), self._no_mask
        answer = decode_tokens(self.mask_decoder, embeddings, pe, sparse, dense, which)
        return answer, self.heads.score(answer.iou_token, answer.mask_tokens[:, 0])

    @property
    def _no_mask(self) -> Tensor:
        """The dense prompt (1, D, 1, 1) of a prompt without a mask."""
        weight: Tensor = self.prompt_encoder.no_mask_embed.weight
        return weight.reshape(1, -1, 1, 1)


def save_decoder(decoder: InstanceDecoder, architecture: str, path: Path) -> None:
    """Write a decoder as safetensors, whole or not at all. The file's SHA-256 is the decoder's identity.

    Args:
        architecture: name of the SAM that it belongs to (`samif.sam.zoo.ARCHITECTURES`).
    """
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in decoder.state_dict().items()}
    files.commit(path, save(tensors, metadata={"samif_decoder": architecture}))


def load_decoder(path: Path) -> tuple[InstanceDecoder, str]:
    """Read what `save_decoder` wrote.

    Returns:
        The decoder, frozen and in eval mode, and the name of its architecture.

    Raises:
        ObjectMissing: there is no such file.
        IntegrityError: it is damaged or not a decoder of samif.
    """
    try:
        with safe_open(path, "pt") as file:
            architecture = (file.metadata() or {}).get("samif_decoder")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise ObjectMissing(f"{path} does not exist; run 'samif run' or give a registered version") from None
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); restore it from the registry or run 'samif run'") from None
    if architecture is None:
        raise IntegrityError(f"{path} is not a decoder of samif; give the decoder.safetensors of a version")
    with torch.device("meta"):
        decoder = _empty(architecture)
    try:
        decoder.load_state_dict(tensors, assign=True)
    except RuntimeError:
        raise IntegrityError(
            f"{path} does not fit the '{architecture}' decoder of this version of samif; train it again"
        ) from None
    return decoder.eval().requires_grad_(False), architecture


def _empty(architecture: str) -> InstanceDecoder:
    """Prompt encoder and mask decoder of an architecture; the official three share one layout."""
    if architecture in COMPACT:
        return InstanceDecoder.of(COMPACT[architecture]())
    prompt_encoder = PromptEncoder(
        embed_dim=256, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
    )
    mask_decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        transformer_dim=256,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return InstanceDecoder(prompt_encoder, mask_decoder)
