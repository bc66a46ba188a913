"""The sections `registry` and `gates` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from samif.config.strict import Points, Positive, Strict, is_empty
from samif.io.address import secretless

_MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"


class RegistryParams(Strict):
    """The model registry."""

    tracking_uri: Annotated[str, secretless(f"set {_MLFLOW}")] | None = None
    """Address of an MLflow server; `null` keeps versions inside the workspace."""


class Limits(Strict):
    """Points (0-100) per group, for every class, or for single classes; `null` sets no limit."""

    base: Points | None = None
    """Base classes."""
    novel: Points | None = None
    """Novel classes."""
    all: Points | None = None
    """All classes."""
    each_class: Points | None = None
    """Each class."""
    classes: dict[str, Points | None] = Field(default={})
    """Single classes, instead of `each_class`."""


class GatesParams(Strict):
    """Conditions for promoting a version, measured against the live version on the same images.

    Drops are computed over the classes that both versions know. A drop beyond its limit whose interval contains zero is
    unclear: a named person decides.
    """

    metric: Literal["ap", "ap50"] = "ap"
    """Metric of floors and drops, in points (0-100)."""
    floors: Limits = Limits()
    """Minimum score per group and class; `null` sets no limit."""
    max_drop: Limits = Limits(base=0.5, novel=2.0, all=1.0, each_class=10.0)
    """Allowed drop per group and class, over the classes that both versions know; `null` sets no limit."""
    min_instances: Positive = 20
    """Labelled objects below which a class is skipped and a group is unclear."""
    max_unlabelled_false_positives: Annotated[float, Field(ge=0.0)] | None = None
    """Limit of false positives on unlabelled objects, per image; `null` sets no limit."""
    max_unlabelled_false_positives_rise: Annotated[float, Field(ge=0.0)] | None = 0.2
    """Allowed rise of that number; `null` sets no limit."""
    max_named_drop: Annotated[float, Field(ge=0.0, le=100.0)] | None = 3.0
    """Allowed drop, in points, of the share of objects that are rightly named; `null` sets no limit."""
    max_false_names: Annotated[float, Field(ge=0.0)] | None = None
    """Limit of false names per 1,000 images; `null` sets no limit."""
    max_false_names_rise: Annotated[float, Field(ge=0.0)] | None = 50.0
    """Allowed rise of that number; `null` sets no limit."""
    same_decoder: bool = True
    """Whether the decoder must be that of the live version."""
    old_rows: Literal["identical", "any"] = "identical"
    """`identical` requires bit-identical rows of known classes; `any` allows retrained ones."""
    approval: Literal["unclear", "always"] = "unclear"
    """`unclear` asks a person only about unclear verdicts, `always` about every verdict."""
    approver: Literal["anyone", "another"] = Field(default="anyone", exclude_if=lambda who: bool(who == "anyone"))
    """`another` takes no approval of the person who requests the promotion."""
    promoters: list[str] = Field(default=[], exclude_if=is_empty)
    """Names of those who may request a promotion; empty means everybody."""
    approvers: list[str] = Field(default=[], exclude_if=is_empty)
    """Names of those who may approve a verdict or override it by force; empty means everybody."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Bootstrap resamples of the images."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence of the intervals; of those of all classes together."""
    seed: int = 0
    """Seed of the resamples."""
