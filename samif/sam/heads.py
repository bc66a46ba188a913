"""What SAM-IF adds to SAM's mask decoder: an objectness score and a point proposal map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InstanceHeads(nn.Module):
    """Objectness of a prompt's answer, and where to prompt at all.

    Args:
        token_dim: width of the decoder's tokens (256 for official SAM, 64 for tiny).
        embedding_dim: channels of the image embedding that the proposal map is made from, the first ones.
    """

    def __init__(self, *, token_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self._channels = embedding_dim
        self.objectness = nn.Sequential(
            nn.Linear(2 * token_dim, token_dim), nn.GELU(), nn.Linear(token_dim, token_dim), nn.GELU(),
            nn.Linear(token_dim, 1),
        )  # fmt: skip
        self.proposal = nn.Sequential(
            nn.Conv2d(embedding_dim, 64, 1), nn.GELU(), nn.Conv2d(64, 64, 3, padding=1), nn.GELU(),
            nn.Conv2d(64, 4, 1), nn.PixelShuffle(2),
        )  # fmt: skip

    def score(self, iou_token: Tensor, mask_token: Tensor) -> Tensor:
        """Objectness logits (N,) from the IoU token and the single-mask token, both (N, token_dim)."""
        logits: Tensor = self.objectness(torch.cat([iou_token, mask_token], dim=-1))
        return logits.squeeze(-1)

    def centres(self, embeddings: Tensor) -> Tensor:
        """Logits (B, 2h, 2w) of "deep inside one object", from embeddings (B, C, h, w)."""
        logits: Tensor = self.proposal(embeddings[:, : self._channels])
        return logits.squeeze(1)
