"""What stages read: data sets, embeddings, decoder, encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.embedding_manifest import EmbeddingManifest
from flows.layout import Layout
from flows.pictures import pictures_root
from flows.quarantine import Quarantine
from flows.store import EmbeddingReader, EmbeddingStore, open_store
from flows.weights import resolve
from samif.config import EncoderParams, Params
from samif.dataset.model import Dataset, Picture
from samif.errors import SamifError

if TYPE_CHECKING:
    import torch

    from samif.sam.decoder import InstanceDecoder
    from samif.sam.encoder import ImageEncoder
    from samif.sam.zoo import LoadedSam


@dataclass(frozen=True)
class Source:
    """One split: its checked pictures and their embeddings."""

    dataset: Dataset
    read: Callable[[Sequence[Picture]], torch.Tensor]


def index_of(layout: Layout, params: Params, split: str) -> Dataset:
    """The checked pictures of `train` or `val`, as the dataset stage left them."""
    return Dataset.load(layout.index(split), pictures_root(layout, params, split))


def dataset_of(layout: Layout, params: Params, split: str) -> Dataset:
    """The checked pictures of `train` or `val`, without those that could not be embedded."""
    index = index_of(layout, params, split)
    out = Quarantine.load(layout.quarantine("embed")).sha256s
    return index.only(p.id for p in index.pictures if p.sha256 not in out) if out else index


def store_of(layout: Layout, params: Params) -> EmbeddingStore:
    """The embedding store that params.yaml names."""
    return open_store(params.embed.store, layout.root, params.encoder.stored_as, params.embed.cache_gib)


def source_of(layout: Layout, params: Params, split: str) -> Source:
    """A split with a reader of its embeddings, pictures -> (N, C, h, w) float32."""
    reader = EmbeddingReader(store_of(layout, params), EmbeddingManifest.load(layout.embeddings))
    return Source(dataset_of(layout, params, split), lambda pictures: reader.read([p.sha256 for p in pictures]))


def sam_of(params: EncoderParams) -> LoadedSam:
    """The SAM that params.yaml names, fetched if need be and checked."""
    from samif.sam.zoo import load_sam

    checkpoint = resolve(params.name, params.checkpoint, params.sha256)
    return load_sam(params.name, checkpoint.path, checkpoint.sha256)


def check_encoder(layout: Layout, digest: str) -> None:
    """Refuse to mix encoders: the embeddings of the workspace were made with one, and only that one may be used.

    Raises:
        SamifError: `digest` is not the digest in the embedding manifest.
    """
    made_with = EmbeddingManifest.load(layout.embeddings).encoder.digest
    if digest != made_with:
        raise SamifError(
            f"the encoder at hand ({digest[:12]}) is not the one that {layout.embeddings} was made with "
            f"({made_with[:12]}); run 'samif run', which embeds again"
        )


def encoder_of(params: EncoderParams, device: str = "cpu") -> ImageEncoder:
    """The image encoder that params.yaml names, on a device."""
    from samif.sam.encoder import ImageEncoder

    return ImageEncoder(sam_of(params), params.precision, device)


def decoder_of(layout: Layout) -> InstanceDecoder:
    """The workspace's frozen decoder."""
    from samif.sam.decoder import load_decoder

    return load_decoder(layout.decoder / "decoder.safetensors")[0]
