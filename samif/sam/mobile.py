"""`mobile_sam`: SAM's prompt encoder and mask decoder behind a small image encoder that runs on a CPU.

Zhang et al., "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications" (2023); the encoder is
TinyViT-5M of Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (ECCV 2022), whose last
stage stays at stride 16. Names and shapes of the tensors are those of the published checkpoint.

Shape legend: N images; grid (N, C, h, w); W windows of S x S positions; H heads of D channels.
"""

from __future__ import annotations

import copy

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGE_SIZE = 1024
GRID = 64
EMBEDDING_DIM = 256

_WIDTHS, _DEPTHS, _HEADS, _WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
_STRIDES = (2, 2, 1)  # between the stages, after the stem's 4
_EXPANSION = 4
_IMAGENET_CLASSES = 1000


class _ConvNorm(nn.Module):
    """Convolution that keeps the size of the grid at stride 1, then batch norm."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.bn(self.c(x))
        return normed


class _Bottleneck(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolution, GELU between them."""

    def __init__(self, inside: int, middle: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inside, middle)
        self.conv2 = _ConvNorm(middle, middle, 3, stride, groups=middle)
        self.conv3 = _ConvNorm(middle, outside)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class _ConvBlock(_Bottleneck):
    """A bottleneck about a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__(width, _EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + super().forward(x))


class _WindowAttention(nn.Module):
    """Attention within windows; a bias per head and absolute distance in rows and columns."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, x: Tensor) -> Tensor:
        """Windows (W, S * S, C) -> the same shape."""
        # Channels of qkv by head, then query, key and value: (W, S * S, H, 3, D) -> 3 of (W, H, S * S, D).
        q, k, v = self.qkv(self.norm(x)).view(*x.shape[:2], self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias())
        projected: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return projected

    def _bias(self) -> Tensor:
        """(H, S * S, S * S)."""
        along = torch.arange(self.window, device=self.attention_biases.device)
        distance = (along[:, None] - along[None, :]).abs()
        table: Tensor = self.attention_biases.view(self.heads, self.window, self.window)
        return table[:, distance[:, None, :, None], distance[None, :, None, :]].flatten(3).flatten(1, 2)


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, _EXPANSION * width)
        self.fc2 = nn.Linear(_EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class _AttentionBlock(nn.Module):
    """Window attention, a depthwise convolution across the windows' borders, and an MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = _WindowAttention(width, heads, window)
        self.local_conv = _ConvNorm(width, width, 3, groups=width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Grid (N, C, h, w) -> the same shape."""
        x = self.local_conv(x + self._attend(x))
        out: Tensor = x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        side = self.attn.window
        # Positions that fill up the last windows are zeros, and attention sees them as such.
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.view(n, rows, side, columns, side, c).transpose(2, 3).reshape(-1, side * side, c)
        out = self.attn(windows).view(n, rows, columns, side, side, c).transpose(2, 3)
        whole: Tensor = out.reshape(x.shape)[:, :height, :width].permute(0, 3, 1, 2)
        return whole


class _Stage(nn.Module):
    """Blocks, and what leads to the next stage's width and stride."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x)
        return out if self.downsample is None else self.downsample(out)


class MobileImageEncoder(nn.Module):
    """TinyViT-5M at strides 4, 8, 16 and 16, then SAM's neck."""

    img_size = IMAGE_SIZE

    def __init__(self) -> None:
        super().__init__()
        first, last = _WIDTHS[0], _WIDTHS[-1]
        stem = nn.Sequential(_ConvNorm(3, first // 2, 3, 2), nn.GELU(), _ConvNorm(first // 2, first, 3, 2))
        self.patch_embed = nn.ModuleDict({"seq": stem})
        self.layers = nn.Sequential(*(_stage(i) for i in range(len(_WIDTHS))))
        # The ImageNet classifier, which the published checkpoint holds; nothing here computes it.
        self.norm_head = nn.LayerNorm(last)
        self.head = nn.Linear(last, _IMAGENET_CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(last, EMBEDDING_DIM, 1, bias=False),
            LayerNorm2d(EMBEDDING_DIM),
            nn.Conv2d(EMBEDDING_DIM, EMBEDDING_DIM, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING_DIM),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 1024, 1024), normalised as SAM's -> embeddings (N, 256, 64, 64)."""
        embeddings: Tensor = self.neck(self.layers(self.patch_embed["seq"](x)))
        return embeddings


def _stage(i: int) -> _Stage:
    width = _WIDTHS[i]
    blocks: list[nn.Module] = [
        _AttentionBlock(width, _HEADS[i], _WINDOWS[i]) if i else _ConvBlock(width) for _ in range(_DEPTHS[i])
    ]
    if i == len(_STRIDES):
        return _Stage(blocks, None)
    following = _WIDTHS[i + 1]
    return _Stage(blocks, _Bottleneck(width, following, following, _STRIDES[i]))


def fused(encoder: MobileImageEncoder) -> MobileImageEncoder:
    """A copy of an encoder in eval mode for inference alone: batch norm folded into the convolutions, which lie
    channels last in memory; embeddings differ by rounding."""
    encoder = copy.deepcopy(encoder)
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _ConvNorm):
                setattr(module, name, fuse_conv_bn_eval(child.c, child.bn))
    return encoder.to(memory_format=torch.channels_last)


def build_mobile_sam() -> Sam:
    """A `mobile_sam` with fresh random weights, on the current default device."""
    return Sam(
        image_encoder=MobileImageEncoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=EMBEDDING_DIM,
            image_embedding_size=(GRID, GRID),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_DIM, mlp_dim=2048, num_heads=8),
            transformer_dim=EMBEDDING_DIM,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )
