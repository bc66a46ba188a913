"""The section `watch` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from samif.config.strict import Fraction, Points, Positive, Strict
from samif.io.address import secretless

WatchedStatistic = Literal[
    "objects", "background", "unknown", "margin", "out_of_distribution", "classes", "embedding", "uncertainty"
]

_SIGNED = "let the receiver check the signature that SAMIF_WATCH_SECRET in the environment gives"


class WatchParams(Strict):
    """Monitoring of the image stream and of the live version.

    An undisturbed stream of `horizon` images raises any alarm with probability `false_alarm`, so there is one false
    alarm in about `horizon / false_alarm` images.
    """

    statistics: list[WatchedStatistic] = Field(default=[*get_args(WatchedStatistic)], min_length=1)
    """Statistics that are monitored."""
    window: Annotated[int, Field(ge=2, le=10_000)] = 50
    """Images that a level is averaged over; shorter detects large changes sooner, longer detects small ones."""
    false_alarm: Annotated[float, Field(gt=0.0, le=0.5)] = 0.05
    """Probability of any alarm in an undisturbed stream of `horizon` images."""
    horizon: Annotated[int, Field(ge=10, le=100_000)] = 1000
    """Length of that stream, in images."""
    block_length: Positive = 1
    """Number of consecutive images that are similar, for images that come in batches."""
    embedding_components: Positive = 16
    """Principal components of the image embedding."""
    object_components: Positive = 32
    """Principal components of object features and of their uncertainty."""
    simulations: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Streams resampled from the reference images to compute the limits."""
    replay_hours: Annotated[float, Field(ge=0.0)] = 24.0
    """Hours between two evaluations of the live version on the validation images."""
    replay_images: Annotated[int, Field(ge=0)] = 8
    """Validation images that are encoded again in each of them."""
    max_novel_share: Fraction = 0.5
    """Share of novel classes above which partial retraining is recommended."""
    max_forgetting: Points = 2.0
    """Points of AP50 that base classes may lose before partial retraining is recommended."""
    webhook: Annotated[str, Field(pattern=r"^https?://\S+$"), secretless(_SIGNED)] | None = None
    """Address that receives every alarm, signed with the secret in SAMIF_WATCH_SECRET."""
    seed: int = 0
    """Seed of the resampled streams."""
