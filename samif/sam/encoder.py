"""The frozen image encoder: pictures in, embeddings out, with the digests that name them in a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from samif.sam.frame import Frame
from samif.sam.zoo import ARCHITECTURES, LoadedSam, load_sam


class ImageEncoder:
    """SAM's image encoder behind the official preprocessing.

    Attributes:
        name: architecture, `tiny` or an official one.
        digest: SHA-256 of the encoder's weights; with `preprocessing_digest` it names an embedding.
    """

    def __init__(self, loaded: LoadedSam) -> None:
        self.name = loaded.name
        self.digest = loaded.encoder_digest
        self.file_sha256 = loaded.file_sha256
        self.sam: Sam = loaded.sam
        self.image_size = int(self.sam.image_encoder.img_size)
        self._resize = ResizeLongestSide(self.image_size)

    @property
    def preprocessing_digest(self) -> str:
        """SHA-256 of how a picture is resized, normalised and padded."""
        recipe = f"longest side {self.image_size}, PIL bilinear, normalise, pad right and bottom with 0, float32"
        return hashlib.sha256(recipe.encode()).hexdigest()

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one picture."""
        return ARCHITECTURES[self.name].embedding

    def frame(self, picture: NDArray[np.uint8]) -> Frame:
        """The frame of a picture (H, W, 3)."""
        return Frame(picture.shape[0], picture.shape[1], self.image_size)

    @torch.inference_mode()
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Pictures (H, W, 3) uint8 RGB of any sizes -> embeddings (N, C, h, w) float32."""
        embeddings: Tensor = self.sam.image_encoder(torch.stack([self._prepare(picture) for picture in pictures]))
        return embeddings.float()

    def _prepare(self, picture: NDArray[np.uint8]) -> Tensor:
        resized = torch.from_numpy(np.ascontiguousarray(self._resize.apply_image(picture))).permute(2, 0, 1)
        normal = (resized.float() - self.sam.pixel_mean) / self.sam.pixel_std
        return F.pad(normal, (0, self.image_size - normal.shape[2], 0, self.image_size - normal.shape[1]))


def load_encoder(name: str, checkpoint: Path | None = None, sha256: str | None = None) -> ImageEncoder:
    """Load an encoder; errors as `samif.sam.zoo.load_sam`."""
    return ImageEncoder(load_sam(name, checkpoint, sha256))
