"""The sections of params.yaml on decoder, proposals, classifiers, sessions and evaluation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from samif.config.data import ShotSource
from samif.config.strict import Fraction, Positive, Strict, is_false

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
FeaturePart = Literal["token", "pooled", "semantic"]


class PretrainDecoderParams(Strict):
    """Instance-level fine-tuning of the mask decoder (SAM-IF, section on decoder fine-tuning).

    It stops after `steps`, or earlier where every image has been seen `max_epochs` times: a decoder fine-tuned for
    long on few images returns what it was shown for every click.
    """

    classes: Literal["base", "all"] = "base"
    steps: Positive = 400
    max_epochs: Positive = 20
    images_per_step: Positive = 8
    object_points: Positive = 6
    background_points: Positive = 3
    learning_rate: Annotated[float, Field(gt=0.0, le=0.1)] = 5e-4
    erosion: Fraction = 0.15
    seed: int = 0
    workers: Positive = Field(default=1, exclude_if=lambda workers: bool(workers == 1))
    """Of Ray, which share each step; their number decides the last bits of the decoder, so a change fine-tunes it
    anew."""


class ProposeParams(Strict):
    """Where to prompt, and which of the answers are kept as proposals."""

    prompts: Literal["points", "grid"] = "points"
    points: Positive = 64
    grid: Annotated[int, Field(ge=1, le=64)] = 16
    min_objectness: Fraction = 0.2
    max_proposals: Positive = 100
    duplicate_iou: Fraction = 0.9


class TrainBaseParams(Strict):
    """Features, head and background class; frozen once the base classifier is made."""

    features: list[FeaturePart] = Field(default=["pooled"], min_length=1)
    head: Literal["cosine", "centred", "lda", "ranpac"] = "lda"
    background_prototypes: Positive = 16
    unknown_weight: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """How much it counts that an object of a class nobody taught is not named; 0 knows no such objects."""
    rejection: Annotated[float, Field(ge=0.0, le=0.5)] = 0.2
    """Share of known objects that may go without a name so that fewer unknown ones are given one."""
    shot_bias: bool = False
    """Whether classes learnt from few instances are given a bias, measured on base classes learnt from as few."""
    prompts_per_object: Positive = 3
    seed: int = 0


class IncrementalParams(Strict):
    """How the shots of a session are used."""

    prompts_per_shot: Positive = 5
    rotations: list[Literal[90, 180, 270]] = Field(default=[90, 180, 270])
    outliers: Literal["keep", "downweight"] = "keep"
    """What is done with shots that lie far from the others of their class, from four shots on."""


class SessionParams(Strict):
    """One increment on top of the classifier named by `after`: new classes from K shots each, or more background.

    Shots come from the training images, or from `source`, so that a new part needs no change of what the base was
    trained on. With `background`, every object labelled in `source` is one that was wrongly named, whatever its label
    says: nothing like it is to be named again.
    """

    after: Name
    classes: list[str] = Field(default=[], validate_default=True)
    shots: Positive = 10
    seed: int = 0
    source: ShotSource | None = None
    background: bool = Field(default=False, exclude_if=is_false)

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.background and (self.classes or self.source is None):
            raise ValueError("a session of 'background' takes no 'classes', and its labels from a 'source' of its own")
        if not self.background and not self.classes:
            raise ValueError("expected 'classes' that the session teaches, got none")
        return self


class EvaluateParams(Strict):
    """Duplicate removal and the operating point of the reports."""

    duplicates: Literal["nms", "soft", "diffusion"] = "diffusion"
    duplicate_iou: Fraction = 0.5
    max_detections: Positive = 100
    operating_score: Fraction = 0.3
