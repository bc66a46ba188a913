"""The sections `registry` and `gates` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from samif.config.strict import Points, Positive, Strict
from samif.io.address import secretless

_MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"


class RegistryParams(Strict):
    """Where MLflow keeps versions; none means SQLite and a folder inside the workspace."""

    tracking_uri: Annotated[str, secretless(f"set {_MLFLOW}")] | None = None


class Limits(Strict):
    """Points (0-100) per group, for every class, and for single classes instead of that; none asks nothing."""

    base: Points | None = None
    novel: Points | None = None
    all: Points | None = None
    each_class: Points | None = None
    classes: dict[str, Points | None] = Field(default={})


class GatesParams(Strict):
    """What a version must hold to go live, measured against the live one on the same images.

    Drops are counted over the classes that both know. A drop beyond its limit whose interval holds zero is not
    refused but left to a named person, who approves it or not.
    """

    metric: Literal["ap", "ap50"] = "ap"
    floors: Limits = Limits()
    max_drop: Limits = Limits(base=0.5, novel=2.0, all=1.0, each_class=10.0)
    min_instances: Positive = 20
    max_false_tags: Annotated[float, Field(ge=0.0)] | None = None
    max_false_tags_rise: Annotated[float, Field(ge=0.0)] | None = 0.2
    same_decoder: bool = True
    old_rows: Literal["identical", "any"] = "identical"
    approval: Literal["unclear", "always"] = "unclear"
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 0
