"""The section `dataset` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from samif.config.strict import Positive, Strict

DataProtocol = Literal["coco2014-60-20", "part-of-coco2014"]


class CocoSource(Strict):
    """A folder of images and a COCO instance file, on this machine."""

    images: str
    annotations: str


class ShotSource(CocoSource):
    """Images and labels of their own for one session, pinned to their content: its digest decides whether the
    session runs again."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DrawnParams(Strict):
    """How many scenes of the demo line to draw."""

    seed: int = 0
    base_images: Positive = 260
    mixed_images: Positive = 60
    val_images: Positive = 120
    size: Annotated[int, Field(ge=64, le=2048)] = 320


class DatasetParams(Strict):
    """Where images come from, and which classes the base classifier may learn."""

    drawn: DrawnParams | None = None
    train: CocoSource | None = None
    val: CocoSource | None = None
    holdout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    seed: int = 0
    broken_images: Literal["refuse", "quarantine"] = "refuse"
    base_classes: list[str] = Field(min_length=1)
    protocol: DataProtocol | None = None
    """What the data claim to be: a published protocol, which the dataset stage holds them against, or a part of it."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.drawn is None) == (self.train is None):
            raise ValueError("give either 'drawn' (the demo line) or 'train' (your own COCO file)")
        if len(set(self.base_classes)) != len(self.base_classes):
            raise ValueError("'base_classes' names a class twice")
        if self.protocol == "coco2014-60-20" and self.broken_images != "refuse":
            raise ValueError("'broken_images' must be refuse: the published 'protocol' leaves no image out")
        return self
