"""Our forward pass of the official image encoder against the official one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from samif.sam import vit
from samif.sam.vit import FastViT


def official(side: int, window: int = 14) -> ImageEncoderViT:
    """A thin official encoder, built as `segment_anything.build_sam` does, with positions that matter."""
    torch.manual_seed(side)
    encoder = ImageEncoderViT(
        img_size=side * 16,
        embed_dim=48,
        depth=4,
        num_heads=3,
        out_chans=24,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=window,
        global_attn_indexes=(1, 3),
    )
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return encoder.eval().requires_grad_(False)


def images(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side * 16, side * 16, generator=torch.Generator().manual_seed(0))


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((a - b).abs().max() / b.abs().max())


# 14 is one whole window, 16 and 20 need padding, 36 goes beyond what is multiplied in
@pytest.mark.parametrize("side", [14, 16, 20, 36])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_embedding_is_the_official_one(side: int, dtype: torch.dtype, most: float) -> None:
    encoder = official(side)
    ours = FastViT(encoder, dtype)(images(side))
    assert ours.dtype == torch.float32
    assert distance(ours, encoder(images(side))) < most


@pytest.mark.parametrize("tile", [1, 14 * 14 * 5, 1 << 30])
def test_the_size_of_tiles_does_not_matter(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = official(36)
    monkeypatch.setattr(vit, "TILE", tile)
    assert distance(FastViT(encoder, torch.float32)(images(36, 1)), encoder(images(36, 1))) < 1e-5


@pytest.mark.parametrize("grid", [(5, 7), (36, 34)])
def test_the_fused_kernel_does_what_tiles_do(grid: tuple[int, int]) -> None:
    length, heads, width = grid[0] * grid[1], 3, 8
    q, k, v = (torch.randn(2 * heads, length, width) for _ in range(3))
    by_row, by_column = torch.randn(2 * heads, length, grid[0]), torch.randn(2 * heads, length, grid[1])
    fused = vit._fused(q, k, v, by_row, by_column, 0.4, heads)
    torch.testing.assert_close(vit._tiled(q * 0.4, k, v, by_row, by_column), fused, atol=1e-5, rtol=1e-5)


def test_float32_shares_the_weights_and_bfloat16_leaves_them_alone() -> None:
    encoder = official(14)
    shared, copied = FastViT(encoder, torch.float32), FastViT(encoder, torch.bfloat16)
    assert shared.blocks[0].lin1.weight.data_ptr() == encoder.blocks[0].mlp.lin1.weight.data_ptr()
    assert copied.blocks[0].lin1.weight.dtype == torch.bfloat16
    assert encoder.blocks[0].mlp.lin1.weight.dtype == torch.float32
