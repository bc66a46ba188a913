"""The section `watch` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from samif.config.strict import Fraction, Points, Positive, Strict
from samif.io.address import secretless

WatchedStatistic = Literal["objects", "background", "unknown", "margin", "strange", "classes", "embedding", "doubt"]

_SIGNED = "let the receiver check the signature that SAMIF_WATCH_SECRET in the environment gives"


class WatchParams(Strict):
    """When a stream of images, or the live version itself, is no longer what it was.

    An undisturbed stream of `horizon` images raises any alarm with probability `false_alarm`, so there is one false
    alarm in about `horizon / false_alarm` images.
    """

    statistics: list[WatchedStatistic] = Field(
        default=["objects", "background", "unknown", "margin", "strange", "classes", "embedding", "doubt"], min_length=1
    )
    window: Annotated[int, Field(ge=2, le=10_000)] = 50
    """Images that a level rests on: shorter sees big changes sooner, longer sees small ones."""
    false_alarm: Annotated[float, Field(gt=0.0, le=0.5)] = 0.05
    horizon: Annotated[int, Field(ge=10, le=100_000)] = 1000
    block: Positive = 1
    """Neighbouring reference images that are alike, as where images come in batches."""
    directions: Positive = 16
    """Of the images' embedding."""
    object_directions: Positive = 32
    """Of the objects' features, and of the doubt about them."""
    streams: Annotated[int, Field(ge=200, le=100_000)] = 2000
    """Drawn to find the limits."""
    replay_hours: Annotated[float, Field(ge=0.0)] = 24.0
    """How often the live version is scored again on the frozen images."""
    replay_images: Annotated[int, Field(ge=0)] = 8
    """Of these, encoded again from their files."""
    max_novel_share: Fraction = 0.5
    """Of classes that came after the base, from which a partial retraining of the base classifier is due."""
    max_forgetting: Points = 2.0
    """Points of AP50 that base classes may have lost since the base classifier."""
    webhook: Annotated[str, Field(pattern=r"^https?://\S+$"), secretless(_SIGNED)] | None = None
    """Gets every alert, signed with the secret in SAMIF_WATCH_SECRET."""
    seed: int = 0
