"""Embeddings to put into a store, and ways to spoil one, for tests on a folder and on a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.store import EmbeddingReader, EmbeddingStore, Namespace
from flows.store.storage import Storage
from samif.config import StoredAs

SHAPE = (4, 6, 8)
ENCODER = EncoderIdentity(name="stand-in", digest="e" * 64)
PREPROCESSING = "p" * 64


def sha(index: int) -> str:
    return hashlib.sha256(str(index).encode()).hexdigest()


def embedding(image: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(image[:12], 16))
    return torch.randn(SHAPE, generator=generator).half().float()


def embeddings(images: list[str]) -> torch.Tensor:
    return torch.stack([embedding(image) for image in images])


def namespace_of(store: EmbeddingStore) -> Namespace:
    return store.namespace(ENCODER.digest, PREPROCESSING)


def write(store: EmbeddingStore, images: list[str]) -> str:
    return namespace_of(store).write(images, embeddings(images))


def manifest_of(images: list[str], dtype: StoredAs = "float16") -> EmbeddingManifest:
    return EmbeddingManifest(
        encoder=ENCODER, preprocessing=PREPROCESSING, shape=SHAPE, dtype=dtype, images=tuple(sorted(set(images)))
    )


def reader_of(store: EmbeddingStore, images: list[str]) -> EmbeddingReader:
    return EmbeddingReader(store, manifest_of(images))


def expect(store: EmbeddingStore, images: list[str]) -> None:
    assert torch.equal(reader_of(store, images).read(images), embeddings(images))


def names_of(store: EmbeddingStore, shard: str) -> tuple[str, str]:
    """Names of a shard's manifest and data."""
    folder = namespace_of(store).folder
    names = [entry.name for entry in store.storage.entries(folder) if shard in entry.name]
    (manifest,) = [name for name in names if name.endswith(".json")]
    (data,) = [name for name in names if name.endswith(".safetensors")]
    return manifest, data


def content_of(store: EmbeddingStore) -> dict[str, bytes]:
    """Everything in a store."""
    names = [entry.name for folder in store.storage.folders() for entry in store.storage.entries(folder)]
    found = {name: store.storage.read(name) for name in names}
    return {name: content for name, content in found.items() if content is not None}


def _change(storage: Storage, name: str, change: Callable[[bytes], bytes]) -> None:
    content = storage.read(name)
    assert content is not None
    changed = change(content)
    assert changed != content
    storage.write(name, [changed])


def _flip(content: bytes, offset: int) -> bytes:
    changed = bytearray(content)
    changed[offset] ^= 0x10
    return bytes(changed)


Spoil = Callable[[Storage, str, str], None]
DAMAGES: dict[str, Spoil] = {
    "torn": lambda storage, _, data: _change(storage, data, lambda content: content[:-1]),
    "empty": lambda storage, _, data: _change(storage, data, lambda _: b""),
    "no data": lambda storage, _, data: storage.delete([data]),
    "flipped bit": lambda storage, _, data: _change(storage, data, lambda content: _flip(content, -5)),
    "flipped first row": lambda storage, _, data: _change(
        storage, data, lambda content: _flip(content, len(content) - 2 * 2 * 4 * 6 * 8)
    ),
    "no manifest": lambda storage, manifest, _: storage.delete([manifest]),
    "torn manifest": lambda storage, manifest, _: _change(storage, manifest, lambda text: text[: len(text) // 2]),
    "flipped manifest": lambda storage, manifest, _: _change(
        storage, manifest, lambda text: text.replace(b'"shape": [\n  2', b'"shape": [\n  3')
    ),
}
"""What happens to the manifest and the data of a shard of two images."""
