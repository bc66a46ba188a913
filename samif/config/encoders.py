"""The sections `encoder`, `semantic` and `embed` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from samif.config.strict import Positive, Strict
from samif.io.address import secretless
from samif.io.packaged_weights import EFFICIENTNET_LITE

StoredAs = Literal["float16", "int8"]
_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
SHIPPED = ("tiny", "photo")
"""Encoders whose weights ship with samif."""
Checkpoint = Annotated[str, secretless(f"set {_AWS} for s3://, or write ~/.netrc for https://")]


class EncoderParams(Strict):
    """The image encoder of SAM."""

    name: Literal["tiny", "photo", "vit_b", "vit_l", "vit_h", "mobile_sam"] = "tiny"
    """Architecture; all except `tiny` and `photo`, whose weights ship with samif, need a checkpoint."""
    checkpoint: Checkpoint | None = None
    """File, https:// or s3:// address; `null` looks for the published file in the cache."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the checkpoint; another file is refused. `null` accepts a local file or the published one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder's matrix products; part of the key of an embedding."""
    tiles: Annotated[int, Field(ge=1, le=4)] = Field(default=1, exclude_if=lambda tiles: bool(tiles == 1))
    """Overlapping tiles per image side that are encoded beside the whole image, for small objects; 1 for none. 2 takes
    5 times the time and space of 1, 3 takes 10 times; part of the key of an embedding."""
    stored_as: StoredAs = "float16"
    """Number format of embeddings in the store; part of the key of an embedding."""


class SemanticParams(Strict):
    """A second encoder for class information: a timm network."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")]
    """Name of the timm network, such as `vit_small_patch14_dinov2`, or `efficientnet_lite0` or `efficientnet_lite2`,
    whose weights are installed with samif."""
    checkpoint: Annotated[Checkpoint, Field(min_length=1)] | None = None
    """File, https:// or s3:// address; `null` only for networks whose weights are installed with samif."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the checkpoint; another file is refused. Needed wherever `checkpoint` is."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Longer image side in pixels, a multiple of the network's patch size; `null` uses the network's own size."""

    @model_validator(mode="after")
    def _has_weights(self) -> SemanticParams:
        if self.model not in EFFICIENTNET_LITE and None in (self.checkpoint, self.sha256):
            raise ValueError(
                f"expected 'checkpoint' and 'sha256' of network '{self.model}'; only "
                f"{' and '.join(EFFICIENTNET_LITE)} need none"
            )
        return self


class EmbedParams(Strict):
    """The embedding store and its workers. No result depends on this section."""

    store: Annotated[str, secretless(f"set {_AWS}")] = ".samif/embeddings"
    """Folder, or `s3://bucket/prefix`; several lines and people may share one."""
    cache_gib: Annotated[float, Field(gt=0.0)] = 20.0
    """Local disk for parts of a bucket, in GiB."""
    shard_images: Positive = 64
    """Images per shard."""
    batch_images: Positive = 8
    """Images encoded at once, at most; halved if memory runs out."""
    workers: Positive = 2
    """Ray workers, each with one encoder."""
    address: Annotated[str, secretless("set RAY_AUTH_TOKEN in the environment")] | None = None
    """Address of a Ray cluster; `null` starts Ray on this machine."""
