"""On which device the work is done. PyTorch's fake tensors stand for a GPU, since no machine of the tests has one: they
have shapes and a device but no values, and an operation on tensors of two devices fails as it does on a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from samif.masks.pooling import pool
from samif.sam.decoder import InstanceDecoder
from samif.sam.tiny import build_tiny
from samif.sam.vit import FastViT

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def no_values() -> Iterator[None]:
    with FakeTensorMode(shape_env=ShapeEnv()):  # some shapes depend on values: they stay open
        yield


def official() -> InstanceDecoder:
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=4)
    mask_decoder = MaskDecoder(transformer_dim=32, transformer=transformer)
    return InstanceDecoder(PromptEncoder(32, (8, 8), (128, 128), 16), mask_decoder)


def tiny() -> InstanceDecoder:
    return InstanceDecoder.of(build_tiny())


@torch.no_grad()
@pytest.mark.parametrize(("build", "shape"), [(official, (32, 8, 8)), (tiny, (256, 16, 16))])
def test_a_decoder_on_a_gpu_draws_and_pools_there(
    build: Callable[[], InstanceDecoder], shape: tuple[int, int, int]
) -> None:
    with GPU:
        decoder = build().eval()
    embedding = torch.randn(shape).to(decoder.device)
    context = decoder.prepare_image(embedding.unsqueeze(0))
    answer, objectness = decoder.run_transformer(context, torch.rand(1, 7, 2).to(decoder.device))
    masks = decoder.predict_masks(context, answer)[:, 0]
    pooled = pool(embedding, (masks > 0).float())
    found = (decoder.device, objectness.device, answer.mask_tokens.device, masks.device, pooled.device)
    assert set(found) == {GPU}
    assert len(masks) == 7 and len(pooled) == 7


@torch.no_grad()
def test_an_encoder_on_a_gpu_encodes_there() -> None:
    with GPU:
        official = ImageEncoderViT(
            img_size=64, embed_dim=32, depth=2, num_heads=2, use_rel_pos=True, window_size=3, global_attn_indexes=(1,)
        )
        embeddings = FastViT(official, torch.float32)(torch.randn(2, 3, 64, 64))
    assert embeddings.device == GPU and embeddings.shape == (2, 256, 4, 4)
