"""The embedding store against plain files: reading a shard of vit_b's size, checksums included."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import Comparison, compare
from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.image_keys import ImageKeys
from flows.store import EmbeddingReader, EmbeddingStore
from samif.config import StoredAs

IMAGES = 64
SHAPE = (256, 64, 64)
DTYPES: tuple[StoredAs, ...] = ("float16", "int8")


def run() -> list[Comparison]:
    """Opening a store and reading one shard of 64 images, against reading the bytes of its file."""
    return [_reading(dtype) for dtype in DTYPES]


def _reading(dtype: StoredAs) -> Comparison:
    images = sorted(hashlib.sha256(bytes([number])).hexdigest() for number in range(IMAGES))
    values = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    encoder = EncoderIdentity(name="random", digest="e" * 64)
    manifest = EmbeddingManifest(
        encoder=encoder, preprocessing="p" * 64, shape=SHAPE, dtype=dtype, images=ImageKeys.of(images)
    )
    with tempfile.TemporaryDirectory() as folder:
        store = EmbeddingStore(Path(folder), dtype)
        store.namespace(encoder.digest, manifest.preprocessing).write(images, values)
        (data,) = Path(folder).rglob("*.safetensors")

        wanted = torch.float16 if dtype == "float16" else torch.float32  # the others have to be widened in any case

        def through_the_store() -> torch.Tensor:
            return EmbeddingReader(store, manifest).read(images, wanted)

        note = f"{data.stat().st_size / 2**20:.0f} MiB, every row checked; error {_error(through_the_store(), values)}"
        name = f"reading a shard of {IMAGES} embeddings, {dtype} to {str(wanted).removeprefix('torch.')}"
        return compare(name, through_the_store, data.read_bytes, "`read_bytes` of the same file", note, rounds=15)


def _error(got: torch.Tensor, values: torch.Tensor) -> str:
    """Relative error of Gaussian numbers."""
    return f"{float((got.float() - values).norm() / values.norm()):.1e}"
