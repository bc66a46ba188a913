"""`tiny`: a small SAM of the official package's own modules, 256 px, for the demo line and for tests.

Shape legend: N images or prompts; embedding (N, 256, 16, 16) =
    64 channels of the neck | 16 channels at stride 8, folded 2x2 | 8 channels at stride 4, folded 4x4.
The folded channels carry fine detail to the decoder inside the one tensor that the official predictor,
automatic mask generator and our embedding store hand around, so that all of them work unchanged.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional as F

from samif.sam.decode import decode_tokens
from samif.sam.heads import InstanceHeads

IMAGE_SIZE = 256
GRID = 16
CORE, MID, FINE = 64, 16, 8
EMBEDDING_DIM = CORE + MID * 4 + FINE * 16


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch norm about a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _down(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class TinyImageEncoder(nn.Module):
    """Residual convolutional stem, then global ViT blocks with relative positions, then SAM's neck."""

    img_size = IMAGE_SIZE

    def __init__(self, *, width: int = 128, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.stride4 = nn.Sequential(_down(3, 16), _down(16, 32), _Residual(32))
        self.stride8 = nn.Sequential(_down(32, 64), _Residual(64))
        self.stride16 = nn.Sequential(_down(64, width), _Residual(width))
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID, GRID, width))
        self.blocks = nn.ModuleList(
            Block(dim=width, num_heads=heads, use_rel_pos=True, window_size=0, input_size=(GRID, GRID))
            for _ in range(depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(width, CORE, 1, bias=False),
            LayerNorm2d(CORE),
            nn.Conv2d(CORE, CORE, 3, padding=1, bias=False),
            LayerNorm2d(CORE),
        )
        self.mid = nn.Conv2d(64, MID, 1)
        self.fine = nn.Conv2d(32, FINE, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 256, 256), normalised -> embeddings (N, 256, 16, 16)."""
        at4 = self.stride4(x)
        at8 = self.stride8(at4)
        tokens = self.stride16(at8).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        core = self.neck(tokens.permute(0, 3, 1, 2))
        return torch.cat([core, F.pixel_unshuffle(self.mid(at8), 2), F.pixel_unshuffle(self.fine(at4), 4)], dim=1)


class TinyMaskDecoder(MaskDecoder):  # type: ignore[misc]  # the package has no types
    """The official mask decoder at width 64, whose upscaling also sees the embedding's fine channels."""

    def __init__(self, *, upscaled: int = 16) -> None:
        super().__init__(
            transformer_dim=CORE,
            transformer=TwoWayTransformer(depth=2, embedding_dim=CORE, mlp_dim=256, num_heads=4),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=64,
        )
        self.output_upscaling = nn.ModuleDict({
            "to8": nn.ConvTranspose2d(CORE, 32, 2, stride=2), "mid": nn.Conv2d(MID, 32, 1), "norm8": LayerNorm2d(32),
            "to4": nn.ConvTranspose2d(32, upscaled, 2, stride=2), "fine": nn.Conv2d(FINE, upscaled, 1),
            "merge": nn.Conv2d(upscaled, upscaled, 3, padding=1),
        })  # fmt: skip
        for mlp in self.output_hypernetworks_mlps:
            mlp.layers[-1] = nn.Linear(CORE, upscaled)
        self.instance_heads = InstanceHeads(token_dim=CORE, embedding_dim=EMBEDDING_DIM)

    def core(self, embeddings: Tensor) -> Tensor:
        """The channels (N, 64, 16, 16) that the transformer attends to."""
        return embeddings[:, :CORE]

    def upscale(self, src: Tensor, embeddings: Tensor, image: Tensor) -> Tensor:
        """Transformer output (N, 64, 16, 16), embeddings (B, 256, 16, 16) and the row of each prompt's (N,)
        -> (N, 16, 64, 64)."""
        up = self.output_upscaling
        mid = up["mid"](F.pixel_shuffle(embeddings[:, CORE : CORE + 4 * MID], 2))
        fine = up["fine"](F.pixel_shuffle(embeddings[:, CORE + 4 * MID :], 4))
        at8 = F.relu(up["norm8"](up["to8"](src) + _rows(mid, image)))
        at4 = F.relu(up["to4"](at8) + _rows(fine, image))
        merged: Tensor = at4 + F.relu(up["merge"](at4))
        return merged

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As the official method: an embedding (1, 256, 16, 16) and N prompts -> masks (N, 4, 64, 64), IoU (N, 4)."""
        answer = decode_tokens(self, image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        return answer.masks, answer.iou


def _rows(planes: Tensor, image: Tensor) -> Tensor:
    """`planes[image]`, rows of (B, C, h, w) for each of (N,). Its gradient adds up what prompts of one image send
    back in their order; that of indexing lets threads race where numbers are float32, and ends in other last bits."""
    return F.embedding(image, planes.flatten(1)).view(-1, *planes.shape[1:])


def build_tiny() -> Sam:
    """A `tiny` with fresh random weights, on the current default device."""
    return Sam(
        image_encoder=TinyImageEncoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=CORE,
            image_embedding_size=(GRID, GRID),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=TinyMaskDecoder(),
    )
