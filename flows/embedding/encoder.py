"""What the embedding flow asks of an encoder, and how a process gets one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from flows.artifacts.embedding_manifest import Shape
from samif.config import EncoderParams, SemanticParams

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]


class Encoder(Protocol):
    """What an encoder must offer (`samif.sam.encoder.ImageEncoder`, `samif.semantic.encoder.SemanticEncoder`)."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def preprocessing_digest(self) -> str: ...
    @property
    def embedding_shape(self) -> Shape: ...

    def prepare(self, image: Pixels) -> torch.Tensor:
        """(H, W, 3) uint8 RGB to what `encode_prepared` takes, on the CPU; several threads call this at once."""

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """n prepared images to (n, C, h, w) floating point; only one thread calls this."""


EncoderFactory = Callable[[str], Encoder]
"""Makes the encoder on a device, "cpu" or "cuda"; must be picklable."""


def load_encoder(params: EncoderParams | SemanticParams, device: str) -> Encoder:
    """The encoder that a section of params.yaml names, fetched if need be and checked.

    Raises:
        SamifError: see `encoder_of` and `semantic_of` of `flows.loaders.inputs`.
    """
    from flows.loaders.inputs import encoder_of, semantic_of

    return semantic_of(params, device) if isinstance(params, SemanticParams) else encoder_of(params, device)
