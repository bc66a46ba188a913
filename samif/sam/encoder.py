"""The frozen image encoder: images in, embeddings out, with the digests that name them in a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor, nn

from samif.sam.frame import TILE_OVERLAP, Frame, view_count, views
from samif.sam.mobile import MobileImageEncoder, fused
from samif.sam.pixels import padded_batch, resize, resize_longest
from samif.sam.precision import full_float32, multiplies_bfloat16
from samif.sam.vit import FastViT
from samif.sam.zoo import ARCHITECTURES, LoadedSam

Precision = Literal["float32", "bfloat16"]


class ImageEncoder:
    """SAM's image encoder behind the official preprocessing.

    Args:
        precision: of the matrix products; part of what names an embedding. bfloat16 is the least that they have: a
            device that does not multiply it in hardware works in float32, with the weights unrounded.
        device: where it runs; on a GPU, pixels travel as bytes from pinned memory.
        tiles: per image side, encoded beside the whole image (`samif.sam.frame.views`); 1 for none.

    Attributes:
        name: architecture, `tiny` or an official one.
        digest: SHA-256 of the encoder's weights; with `preprocessing_digest` it names an embedding.
    """

    def __init__(
        self, loaded: LoadedSam, precision: Precision = "float32", device: str = "cpu", tiles: int = 1
    ) -> None:
        self.name = loaded.name
        self.digest = loaded.encoder_digest
        self.file_sha256 = loaded.file_sha256
        self.sam: Sam = loaded.sam
        self.precision = precision
        self.tiles = tiles
        self.device = torch.device(device)
        self.image_size = int(self.sam.image_encoder.img_size)
        self._network = _network(self.sam, _dtype(precision, self.device)).to(self.device)
        self._mean, self._std = (x.to(self.device) for x in (self.sam.pixel_mean, self.sam.pixel_std))

    @property
    def preprocessing_digest(self) -> str:
        """SHA-256 of how an image is resized, normalised and padded, and how precisely it is encoded."""
        return preprocessing_digest(self.image_size, self.precision, self.tiles)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(V * C, h, w) of one image, V the number of its views."""
        return embedding_shape(self.name, self.tiles)

    def frame(self, image: NDArray[np.uint8]) -> Frame:
        """The frame of an image (H, W, 3)."""
        return Frame(image.shape[0], image.shape[1], self.image_size, self.tiles)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Images (H, W, 3) uint8 RGB of any sizes -> embeddings (N, V * C, h, w) float32 on the CPU."""
        return self.encode_prepared([self.prepare(image) for image in images])

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """The part of the work before the network: (H, W, 3) -> resized views (V * 3, h, w) uint8. Safe in several
        threads."""
        whole = resize_longest(image, self.image_size)
        _, *tiles = views(self.frame(image))
        # a tile's longer side may round to another shorter side: one pixel at most
        parts = (np.ascontiguousarray(view.cut(image.transpose(2, 0, 1)).transpose(1, 2, 0)) for view in tiles)
        return torch.cat([whole, *(resize(part, *whole.shape[1:]) for part in parts)])

    @torch.inference_mode()
    def encode_prepared(self, prepared: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        """What `prepare` gave -> embeddings (N, V * C, h, w) of `dtype` on the CPU. They are rounded on the device, so
        that a GPU copies half as much for float16."""
        seen = []
        for view in zip(*(torch.split(image, 3) for image in prepared), strict=True):
            batch = padded_batch(view, self.image_size, self._mean, self._std)
            with full_float32():
                seen.append(self._network(batch).float().to(dtype).cpu())
        return torch.cat(seen, dim=1)


def embedding_shape(name: str, tiles: int) -> tuple[int, int, int]:
    """(V * C, h, w) of the embedding of an image by an architecture, V the number of its views."""
    channels, height, width = ARCHITECTURES[name].embedding
    return view_count(tiles) * channels, height, width


def preprocessing_digest(image_size: int, precision: Precision, tiles: int = 1) -> str:
    """SHA-256 of the preprocessing to `image_size` pixels, of the precision of encoding and of the tiles."""
    recipe = f"longest side {image_size}, PIL bilinear, normalise, pad right and bottom with 0, {precision}"
    if tiles > 1:
        recipe += f", {tiles} x {tiles} tiles that overlap by {TILE_OVERLAP}"
    return hashlib.sha256(recipe.encode()).hexdigest()


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    rounded = precision == "bfloat16" and multiplies_bfloat16(device.type)
    return torch.bfloat16 if rounded else torch.float32


def _network(sam: Sam, dtype: torch.dtype) -> nn.Module:
    """The forward pass: our arrangement of the published architectures, tiny's own."""
    if isinstance(sam.image_encoder, ImageEncoderViT):
        return FastViT(sam.image_encoder, dtype)
    if isinstance(sam.image_encoder, MobileImageEncoder):
        return _Cast(fused(sam.image_encoder), dtype)
    return _Cast(sam.image_encoder, dtype)


class _Cast(nn.Module):
    """A network under autocast to `dtype`; as it is for float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            embeddings: Tensor = self.network(images)
        return embeddings
