"""What stages read: data sets, embeddings, decoder, encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.quarantine import Quarantine
from flows.loaders.checkpoints import fetch, resolve
from flows.runtime.remote_files import is_remote, local_path
from flows.store import EmbeddingReader, EmbeddingStore, open_store
from flows.workspace.image_roots import images_root
from flows.workspace.layout import Layout
from samif.config import EncoderParams, Params, SemanticParams
from samif.dataset.model import Dataset, ImageRecord
from samif.errors import IntegrityError

if TYPE_CHECKING:
    import torch

    from samif.sam.decoder import InstanceDecoder
    from samif.sam.encoder import ImageEncoder
    from samif.sam.zoo import LoadedSam
    from samif.semantic.encoder import SemanticEncoder

Read = Callable[[Sequence[ImageRecord]], "torch.Tensor"]
"""Images -> what an encoder saw in them, (N, V * C, h, w) float32 of V views."""


@dataclass(frozen=True)
class Source:
    """One split: its checked images, their embeddings, and their semantic features where params.yaml names an
    encoder for them; `tiles` as in params.yaml."""

    dataset: Dataset
    read: Read
    read_semantic: Read | None = None
    tiles: int = 1

    def semantic(self, image: ImageRecord) -> torch.Tensor | None:
        """Semantic features (S, g, g) of an image; None without such an encoder."""
        return None if self.read_semantic is None else self.read_semantic([image])[0]

    def look(self, image: ImageRecord) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embedding (V * C, h, w) and semantic features of an image."""
        return self.read([image])[0], self.semantic(image)


def index_of(layout: Layout, params: Params, split: str) -> Dataset:
    """The checked images of `train` or `val`, as the dataset stage left them."""
    return Dataset.load(layout.index(split), images_root(layout, params, split))


def dataset_of(layout: Layout, params: Params, split: str) -> Dataset:
    """The checked images of `train` or `val`, without those that could not be embedded."""
    index = index_of(layout, params, split)
    out = Quarantine.load(layout.quarantine("embed")).sha256s
    return index.only(p.id for p in index.without_labels().images if p.sha256 not in out) if out else index


def store_of(layout: Layout, params: Params) -> EmbeddingStore:
    """The embedding store that params.yaml names; a copy that DVC made for an experiment uses that of its workspace."""
    return open_store(params.embed.store, layout.origin, params.encoder.stored_as, params.embed.cache_gib)


def source_of(layout: Layout, params: Params, split: str) -> Source:
    """A split with readers of what the encoders saw."""
    store = store_of(layout, params)
    seen = reader_of(store, EmbeddingManifest.load(layout.embeddings))
    semantic = reader_of(store, EmbeddingManifest.load(layout.semantic)) if params.semantic is not None else None
    return Source(dataset_of(layout, params, split), seen, semantic, params.encoder.tiles)


def reader_of(store: EmbeddingStore, manifest: EmbeddingManifest) -> Read:
    """A reader of what a manifest lists."""
    embeddings = EmbeddingReader(store, manifest)
    return lambda images: embeddings.read([p.sha256 for p in images])


def sam_of(params: EncoderParams) -> LoadedSam:
    """The SAM that params.yaml names, fetched if need be and checked."""
    from samif.sam.zoo import load_sam

    checkpoint = resolve(params.name, params.checkpoint, params.sha256)
    return load_sam(params.name, checkpoint.path, checkpoint.sha256)


def check_encoder(layout: Layout, digest: str) -> None:
    """Refuse to mix encoders: the embeddings of the workspace were made with one, and only that one may be used.

    Raises:
        IntegrityError: `digest` is not the digest in the embedding manifest.
    """
    _check(layout.embeddings, digest)


def check_semantic(layout: Layout, digest: str) -> None:
    """The same of the semantic encoder."""
    _check(layout.semantic, digest)


def _check(manifest: Path, digest: str) -> None:
    made_with = EmbeddingManifest.load(manifest).encoder.digest
    if digest != made_with:
        raise IntegrityError(
            f"the encoder at hand ({digest[:12]}) is not the one that {manifest} was made with "
            f"({made_with[:12]}); run 'samif run', which embeds again"
        )


def encoder_of(params: EncoderParams, device: str = "cpu") -> ImageEncoder:
    """The image encoder that params.yaml names, on a device."""
    from samif.sam.encoder import ImageEncoder

    return ImageEncoder(sam_of(params), params.precision, device, params.tiles)


def semantic_of(params: SemanticParams, device: str = "cpu") -> SemanticEncoder:
    """The semantic encoder that params.yaml names, fetched if need be and checked, on a device."""
    from samif.semantic.encoder import load_semantic

    path = None  # installed with samif
    if params.checkpoint is not None:
        remote = is_remote(params.checkpoint)
        path = fetch(params.checkpoint, params.sha256) if remote else local_path(params.checkpoint)
    return load_semantic(params.model, path, params.sha256, params.size, device)


def decoder_of(layout: Layout, device: str = "cpu") -> InstanceDecoder:
    """The workspace's frozen decoder, on a device."""
    from samif.sam.decoder import load_decoder

    return load_decoder(layout.decoder / "decoder.safetensors")[0].to(device)
