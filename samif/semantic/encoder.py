"""The frozen semantic encoder: images in, patch features out, with the digests that name them in a cache.

Shape legend: N images, S features of a cell, g cells along a side of the padded square.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from samif.errors import ConfigError
from samif.sam.pixels import padded_batch, resize_longest
from samif.semantic.network import LoadedNetwork, load_network

_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class SemanticEncoder:
    """A network of timm behind the frame of SAM: longer side to `size`, padded right and bottom.

    Args:
        size: side in pixels of the padded square, a multiple of the network's cell; None takes the network's own.
        device: where it runs.

    Attributes:
        name: what timm calls the network.
        digest: SHA-256 of architecture and weights; with `preprocessing_digest` it names what was encoded.

    Raises:
        ConfigError: `size` is no multiple of the network's cell.
    """

    def __init__(self, loaded: LoadedNetwork, size: int | None = None, device: str = "cpu") -> None:
        self.name, self.digest, self.file_sha256 = loaded.name, loaded.digest, loaded.file_sha256
        self.size = size or loaded.own_size
        if self.size % loaded.cell:
            raise ConfigError(
                f"key 'semantic.size': expected a multiple of {loaded.cell}, the cell of '{loaded.name}', got "
                f"{self.size}; take {max(1, round(self.size / loaded.cell)) * loaded.cell}"
            )
        self.device = torch.device(device)
        self._network = loaded.network.to(self.device)
        self._recipe, self._width, self._cells = loaded, loaded.width, self.size // loaded.cell
        self._mean, self._std = (
            (255.0 * torch.tensor(values)).view(3, 1, 1).to(self.device) for values in (loaded.mean, loaded.std)
        )
        self._resample = _RESAMPLE.get(loaded.interpolation, Image.Resampling.BICUBIC)

    @property
    def preprocessing_digest(self) -> str:
        """SHA-256 of how an image is resized, normalised and padded, and which features are kept."""
        recipe = (
            f"longest side {self.size}, PIL {self._resample.name.lower()}, normalise {self._recipe.mean} "
            f"{self._recipe.std}, pad right and bottom with 0, last normalised patch tokens, float32"
        )
        return hashlib.sha256(recipe.encode()).hexdigest()

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(S, g, g) of one image."""
        return self._width, self._cells, self._cells

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Images (H, W, 3) uint8 RGB of any sizes -> features (N, S, g, g) float32 on the CPU."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """The part of the work before the network: (H, W, 3) -> resized (3, h, w) uint8. Safe in several threads."""
        return resize_longest(image, self.size, self._resample)

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """What `prepare` gave -> features (N, S, g, g) of `dtype` on the CPU, rounded on the device; tokens of no patch
        are left out."""
        batch = padded_batch(prepared, self.size, self._mean, self._std)
        features: Tensor = self._network.forward_intermediates(  # type: ignore[operator]
            batch, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )[0]
        return features.float().to(dtype).cpu()


def load_semantic(
    name: str, checkpoint: Path | None, sha256: str | None = None, size: int | None = None, device: str = "cpu"
) -> SemanticEncoder:
    """Load a semantic encoder; errors as `samif.semantic.network.load_network` and `SemanticEncoder`."""
    return SemanticEncoder(load_network(name, checkpoint, sha256), size, device)
