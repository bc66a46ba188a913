"""Interface of encoders for the embedding flow, and how a process loads one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from flows.artifacts.embedding_manifest import Shape
from samif.config import EncoderParams, SemanticParams

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]


class Encoder(Protocol):
    """Interface of `samif.sam.encoder.ImageEncoder` and `samif.semantic.encoder.SemanticEncoder`."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def preprocessing_digest(self) -> str: ...
    @property
    def embedding_shape(self) -> Shape: ...

    def prepare(self, image: Pixels) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> input of `encode_prepared`, on the CPU; called by several threads at once."""

    def encode_prepared(self, prepared: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """n prepared images -> (n, C, h, w) of `dtype` on the CPU, rounded on the device; called by one thread."""


EncoderFactory = Callable[[str], Encoder]
"""Makes the encoder on a device, "cpu" or "cuda"; must be picklable."""


class EncoderInfo(NamedTuple):
    """What names the embeddings of an encoder in the store, and their shape (C, h, w)."""

    name: str
    digest: str
    preprocessing_digest: str
    embedding_shape: Shape

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderInfo:
        """The information of a loaded encoder."""
        return cls(encoder.name, encoder.digest, encoder.preprocessing_digest, encoder.embedding_shape)


def describe_encoder(params: EncoderParams | SemanticParams) -> EncoderInfo:
    """The encoder that a section of params.yaml names: its weights are fetched, verified and hashed. The network of
    SAM's encoder is not built; a semantic encoder is loaded, since its digest is that of timm's layout.

    Raises:
        SamifError: as `sam_of` and `semantic_of` of `flows.loaders.inputs`.
    """
    from flows.loaders.inputs import sam_of, semantic_of

    if isinstance(params, SemanticParams):
        return EncoderInfo.of(semantic_of(params))
    from samif.sam.encoder import embedding_shape, preprocessing_digest
    from samif.sam.zoo import ARCHITECTURES

    loaded = sam_of(params)
    image_size = ARCHITECTURES[loaded.name].image_size
    preprocessing = preprocessing_digest(image_size, params.precision, params.tiles)
    shape = embedding_shape(loaded.name, params.tiles)
    return EncoderInfo(loaded.name, loaded.encoder_digest, preprocessing, shape)


def load_encoder(params: EncoderParams | SemanticParams, device: str) -> Encoder:
    """The encoder that a section of params.yaml names, on a device.

    Raises:
        SamifError: as `encoder_of` and `semantic_of` of `flows.loaders.inputs`.
    """
    from flows.loaders.inputs import encoder_of, semantic_of

    return semantic_of(params, device) if isinstance(params, SemanticParams) else encoder_of(params, device)
