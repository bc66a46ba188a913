"""The sections `encoder`, `semantic` and `embed` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from samif.config.strict import Positive, Strict
from samif.io.address import secretless

StoredAs = Literal["float16", "int8"]
_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
Checkpoint = Annotated[str, secretless(f"set {_AWS} for s3://, or write ~/.netrc for https://")]


class EncoderParams(Strict):
    """The image encoder: `tiny` ships with the package, official ones need a checkpoint."""

    name: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "tiny"
    checkpoint: Checkpoint | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's matrix products, so a part of what embeddings are; bfloat16 only where hardware has it."""
    stored_as: StoredAs = "float16"
    """What embeddings are rounded to in the store, so a part of what they are."""


class SemanticParams(Strict):
    """A second encoder: a network of timm that says what a thing is, from a checkpoint of its own."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")]
    checkpoint: Annotated[Checkpoint, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Of the image's longer side, a multiple of the network's patch; none takes the network's own."""


class EmbedParams(Strict):
    """The embedding store: where it lies, how it is cut into shards, who computes it."""

    store: Annotated[str, secretless(f"set {_AWS}")] = ".samif/embeddings"
    cache_gib: Annotated[float, Field(gt=0.0)] = 20.0
    shard_images: Positive = 64
    batch_images: Positive = 8
    workers: Positive = 2
    address: Annotated[str, secretless("set RAY_AUTH_TOKEN in the environment")] | None = None
