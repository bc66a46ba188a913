"""Embeddings rounded to float16 by the encoder, where it computes, are those that the store rounded before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.embedding.encoder import Encoder, load_encoder
from flows.embedding.shard_encoder import ShardEncoder
from flows.store import EmbeddingStore
from samif.config import EncoderParams, SemanticParams, StoredAs
from samif.dataset.images import image_sha256, read_image
from tests.support.semantic_checkpoints import SMALL, checkpoint


def tiny(_: Path) -> Encoder:
    return load_encoder(EncoderParams(), "cpu")


def tiny_bfloat16(_: Path) -> Encoder:
    return load_encoder(EncoderParams(precision="bfloat16"), "cpu")


def tiny_tiles(_: Path) -> Encoder:
    return load_encoder(EncoderParams(tiles=2), "cpu")


def semantic(folder: Path) -> Encoder:
    path = checkpoint(folder / "vit.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return load_encoder(SemanticParams(model=SMALL, checkpoint=str(path), sha256=digest, size=64), "cpu")


@pytest.fixture
def shard(tmp_path: Path) -> tuple[tuple[Path, str], ...]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return tuple((path, image_sha256(path)) for path in paths)


@pytest.mark.parametrize("make", [tiny, tiny_bfloat16, tiny_tiles, semantic])
@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_the_store_holds_the_same_bytes(
    make: Callable[[Path], Encoder], stored: StoredAs, shard: tuple[tuple[Path, str], ...], tmp_path: Path
) -> None:
    encoder = make(tmp_path)
    now, before = (EmbeddingStore(tmp_path / name, stored) for name in ("now", "before"))
    ShardEncoder(encoder, now, 2).embed(shard)
    prepared = [encoder.prepare(read_image(path)) for path, _ in shard]
    halves = [encoder.encode_prepared(part, torch.float32) for part in (prepared[:2], prepared[2:])]
    names = [sha256 for _, sha256 in shard]
    before.namespace(encoder.digest, encoder.preprocessing_digest).write(names, torch.cat(halves))
    files = [sorted(path.relative_to(root) for path in root.rglob("*.safetensors")) for root in (
        tmp_path / "now", tmp_path / "before"
    )]  # fmt: skip
    assert files[0] == files[1] and files[0]  # named by their SHA-256
    assert [(tmp_path / "now" / f).read_bytes() == (tmp_path / "before" / f).read_bytes() for f in files[0]] == [True]


def test_every_exponent_and_every_tie_rounds_alike() -> None:
    """The cast of the encoder, the copy into a float16 buffer that rounded before, and NumPy's cast, over 12 million
    float32 numbers: all signs, exponents, leading bits of the mantissa and trailing bits that decide ties."""
    high = torch.arange(2**21, dtype=torch.int64) << 11
    for low in (0, 1, 0x3FF, 0x400, 0x401, 0x7FF):
        values = (high | low).to(torch.int32).view(torch.float32)
        buffer = torch.empty(len(values), dtype=torch.float16)
        buffer.copy_(values)
        cast = values.to(torch.float16)
        assert torch.equal(cast.view(torch.int16), buffer.view(torch.int16))
        finite = values[~values.isnan()].numpy()
        with np.errstate(over="ignore"):
            assert np.array_equal(finite.astype(np.float16), buffer[~values.isnan()].numpy())
