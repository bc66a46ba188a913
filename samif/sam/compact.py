"""The compact decoder of `tiny` and `photo`, and the modules that their encoders share.

Shape legend: N prompts, B images, (h, w) the embedding grid. The first 256 channels of an embedding are
    64 channels of the neck | 16 channels at twice the grid, folded 2x2 | 8 channels at four times the grid, folded 4x4.
The folded channels carry fine detail to the decoder inside the one tensor that the official predictor, automatic mask
generator and our embedding store hand around, so that all of them work unchanged. Channels beyond these are features
for the classifier, which the decoder does not read.
"""

from __future__ import annotations

from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from samif.sam.decode import decode_tokens
from samif.sam.heads import InstanceHeads

CORE, MID, FINE = 64, 16, 8
DECODED = CORE + MID * 4 + FINE * 16
"""Channels of an embedding that the decoder reads."""


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm about a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def downsample(inside: int, outside: int) -> nn.Sequential:
    """A 3x3 convolution of stride 2 with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


def make_neck(width: int) -> nn.Sequential:
    """SAM's neck from `width` channels to `CORE`."""
    return nn.Sequential(
        nn.Conv2d(width, CORE, 1, bias=False),
        LayerNorm2d(CORE),
        nn.Conv2d(CORE, CORE, 3, padding=1, bias=False),
        LayerNorm2d(CORE),
    )


def detail_planes(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The folded channels of embeddings (B, C, h, w), unfolded: (B, 16, 2h, 2w) and (B, 8, 4h, 4w)."""
    middle = CORE + 4 * MID
    return F.pixel_shuffle(embeddings[:, CORE:middle], 2), F.pixel_shuffle(embeddings[:, middle:DECODED], 4)


class CompactMaskDecoder(MaskDecoder):  # type: ignore[misc]  # the package has no types
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
        self.instance_heads = InstanceHeads(token_dim=CORE, embedding_dim=DECODED)

    def core(self, embeddings: Tensor) -> Tensor:
        """The channels (B, 64, h, w) that the transformer attends to."""
        return embeddings[:, :CORE]

    def upscale(self, src: Tensor, embeddings: Tensor, image: Tensor) -> Tensor:
        """Transformer output (N, 64, h, w), embeddings (B, C, h, w) and the row of each prompt's (N,)
        -> (N, 16, 4h, 4w)."""
        up = self.output_upscaling
        mid, fine = (up[name](plane) for name, plane in zip(("mid", "fine"), detail_planes(embeddings), strict=True))
        # In place, as these planes are large and memory is what the time goes to.
        at8 = up["norm8"](up["to8"](src).add_(_rows(mid, image))).relu_()
        at4 = up["to4"](at8).add_(_rows(fine, image)).relu_()
        merged: Tensor = at4 + up["merge"](at4).relu_()
        return merged

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As the official method: an embedding (1, C, h, w) and N prompts -> masks (N, 4, 4h, 4w), IoU (N, 4)."""
        answer = decode_tokens(self, image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        return answer.masks, answer.iou


def _rows(planes: Tensor, image: Tensor) -> Tensor:
    """`planes[image]`, rows of (B, C, h, w) for each of (N,). Its gradient adds up what prompts of one image send
    back in their order; that of indexing lets threads race where numbers are float32, and ends in other last bits. The
    planes of a single image need no copy for each prompt where no gradient is asked for."""
    if len(planes) == 1 and not planes.requires_grad:
        return planes
    return F.embedding(image, planes.flatten(1)).view(-1, *planes.shape[1:])


def build_compact(image_encoder: nn.Module, grid: int, image_size: int) -> Sam:
    """A SAM of an image encoder for `image_size` pixels and `grid` x `grid` embeddings, and the compact decoder."""
    prompt_encoder = PromptEncoder(
        embed_dim=CORE,
        image_embedding_size=(grid, grid),
        input_image_size=(image_size, image_size),
        mask_in_chans=16,
    )
    return Sam(image_encoder=image_encoder, prompt_encoder=prompt_encoder, mask_decoder=CompactMaskDecoder())
