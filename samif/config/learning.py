"""The sections of params.yaml on decoder, proposals, classifiers, sessions and evaluation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from samif.config.data import ShotSource
from samif.config.strict import Fraction, Positive, Strict, is_false

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
FeaturePart = Literal["token", "pooled", "semantic"]


class PretrainDecoderParams(Strict):
    """Instance-level finetuning of the mask decoder.

    It ends after `steps`, or after `max_epochs` passes over the images: on few images a decoder finetuned for longer
    returns the trained objects for every prompt.
    """

    classes: Literal["base", "all"] = "base"
    """`base` keeps novel classes unseen; `all` is the setting of the paper."""
    steps: Positive = 400
    """Optimiser steps, at most."""
    max_epochs: Positive = 20
    """Passes over the training images, at most; limits the steps on small data sets."""
    images_per_step: Positive = 8
    """Images per step."""
    object_points: Positive = 6
    """Prompts inside objects, per image."""
    background_points: Positive = 3
    """Prompts on background and on borders between touching objects, per image; their target is empty."""
    learning_rate: Annotated[float, Field(gt=0.0, le=0.1)] = 5e-4
    """Peak learning rate."""
    erosion: Fraction = 0.15
    """Margin between prompts and an object's border, as a share of the object's depth."""
    multimask: bool = Field(default=False, exclude_if=is_false)
    """Whether the three multimask answers are finetuned too, for `propose.multimask`."""
    seed: int = 0
    """Seed of prompts and batches."""
    workers: Positive = Field(default=1, exclude_if=lambda workers: bool(workers == 1))
    """Workers of the Ray cluster `embed.address` that share each step; changes the last bits of the decoder."""


class ProposeParams(Strict):
    """Class-agnostic mask proposals."""

    prompts: Literal["points", "grid"] = "points"
    """`points` uses the point proposal head; `grid` a uniform grid."""
    points: Positive = 64
    """Prompts per image, for `points`."""
    grid: Annotated[int, Field(ge=1, le=64)] = 16
    """Prompts per image side, for `grid`."""
    multimask: bool = Field(default=False, exclude_if=is_false)
    """Whether each prompt also proposes its three multimask answers: parts and wholes, at more time per image."""
    min_objectness: Fraction = 0.2
    """Objectness below which a mask is discarded."""
    max_proposals: Positive = 100
    """Proposals kept per image."""
    duplicate_iou: Fraction = 0.9
    """Mask IoU above which the lower-ranked of two proposals is discarded."""


class TrainBaseParams(Strict):
    """Features, head and background class of the base classifier."""

    features: list[FeaturePart] = Field(default=["pooled"], min_length=1)
    """Features of a mask: `token` (decoder), `pooled` (embedding under the mask), `semantic` (second encoder)."""
    head: Literal["cosine", "centred", "lda", "ranpac"] = "lda"
    """Classifier head: `cosine` (paper), `centred`, `lda` or `ranpac`."""
    background_prototypes: Positive = 16
    """Prototypes of the background class."""
    unknown_weight: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """Weight of unknown objects against known ones in calibration; 0 disables the unknown class."""
    rejection: Annotated[float, Field(ge=0.0, le=0.5)] = 0.2
    """Share of known objects that may be rejected as unknown; only without an operating point."""
    false_names: Annotated[float, Field(gt=0.0)] | None = 100.0
    """Most false names per 1,000 images, as measured on training images that the classifier did not learn from: chooses
    the score from which classes are named. `null` leaves it to `rejection`."""
    class_false_names: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default={})
    """The same for single base classes."""
    prompts_per_object: Positive = 3
    """Prompts per training object."""
    seed: int = 0
    """Seed of prompts, folds and random features."""


class IncrementalParams(Strict):
    """How shots are used."""

    prompts_per_shot: Positive = 5
    """Prompts per shot."""
    rotations: list[Literal[90, 180, 270]] = Field(default=[90, 180, 270])
    """Rotations of each shot, in degrees."""


class SessionParams(Strict):
    """One session: new classes from K shots each, or hard negatives, added to the classifier `after`.

    Shots come from the training images, or from `source`, which leaves the base training data unchanged. With
    `background`, every object in `source` is a hard negative, whatever its label.
    """

    after: Name
    """Previous session, or `base`."""
    classes: list[str] = Field(default=[], validate_default=True)
    """New classes."""
    shots: Positive = 10
    """Labelled objects per new class."""
    seed: int = 0
    """Seed of the shot draw."""
    source: ShotSource | None = None
    """Separate images and labels for the shots; `null` draws them from the training images."""
    background: bool = Field(default=False, exclude_if=is_false)
    """Adds the objects of `source` as hard negatives instead of classes."""

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.background and (self.classes or self.source is None):
            raise ValueError("a session of 'background' takes no 'classes', and its labels from a 'source' of its own")
        if not self.background and not self.classes:
            raise ValueError("expected 'classes' that the session teaches, got none")
        return self


class EvaluateParams(Strict):
    """Duplicate removal and the operating point of reports."""

    duplicates: Literal["nms", "soft", "diffusion"] = "diffusion"
    """Duplicate removal: non-maximum suppression, soft merging or graph diffusion."""
    duplicate_iou: Fraction = 0.5
    """Mask IoU from which two detections are duplicates."""
    max_detections: Positive = 100
    """Detections per image."""
    operating_score: Fraction = 0.3
    """Score threshold of the confusion table and of false positives in reports."""
