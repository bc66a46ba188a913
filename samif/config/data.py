"""The section `dataset` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from samif.config.strict import Fraction, Positive, Strict

DataProtocol = Literal["coco2014-60-20", "part-of-coco2014"]


class CocoSource(Strict):
    """A folder of images and a COCO instance file."""

    images: str
    """Folder of images."""
    annotations: str
    """COCO instance file."""


class ShotSource(CocoSource):
    """Images and labels of their own for one session, pinned to their content: its digest decides whether the
    session runs again."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the content of images and annotations; other content is refused."""


class DrawnParams(Strict):
    """Generated scenes of the demo line."""

    seed: int = 0
    """Seed of the scenes."""
    base_images: Positive = 260
    """Training scenes with base classes only."""
    mixed_images: Positive = 60
    """Training scenes with all classes; the shots come from these."""
    val_images: Positive = 120
    """Validation scenes."""
    size: Annotated[int, Field(ge=64, le=2048)] = 320
    """Longer side, in pixels."""


class ReadRules(Strict):
    """How images and labels are read, and what is done about those that cannot be used."""

    broken_images: Literal["refuse", "quarantine"] = "refuse"
    """`refuse` stops at unreadable images; `quarantine` leaves them out and lists them."""
    broken_labels: Literal["refuse", "quarantine"] = "quarantine"
    """`quarantine` leaves out labels without a usable outline or class, drops stray points, cuts off what is outside
    the image, and lists all of it; `refuse` stops there."""
    max_broken_labels: Fraction = 0.5
    """Share of a file's labels that may be left out or cut; with more of them it stops."""
    crowds: Literal["auto", "ignore", "objects"] = "auto"
    """Labels with `iscrowd: 1`: `objects` learns them, as CVAT and Datumaro write painted masks so; `ignore` takes them
    as regions of many objects, which are neither learnt nor scored; `auto` decides by their number."""
    labels_on: Literal["auto", "upright", "stored"] = Field(default="auto", exclude_if=lambda on: bool(on == "auto"))
    """Labels of images that an EXIF tag turns or mirrors: `upright` if they were drawn on the images as the tag turns
    them, `stored` if on the pixels as the file has them; `auto` decides by the sizes in the COCO file, where they
    tell."""


class DatasetParams(ReadRules):
    """Images, labels and the classes of the base classifier."""

    drawn: DrawnParams | None = None
    """Generated scenes of the demo line, instead of `train`."""
    train: CocoSource | None = None
    """Your training images and labels, instead of `drawn`."""
    val: CocoSource | None = None
    """Your validation images and labels; `null` holds out a part of the training images."""
    holdout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the training images that is held out for validation if `val` is `null`."""
    seed: int = 0
    """Seed of that split."""
    base_classes: list[str] = Field(min_length=1)
    """Classes of the base classifier, fixed when the workspace is created."""
    protocol: DataProtocol | None = None
    """Published protocol that the data must match, or a part of it; the dataset stage checks it."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.drawn is None) == (self.train is None):
            raise ValueError("give either 'drawn' (the demo line) or 'train' (your own COCO file)")
        if len(set(self.base_classes)) != len(self.base_classes):
            raise ValueError("'base_classes' names a class twice")
        if self.protocol == "coco2014-60-20" and self.broken_images != "refuse":
            raise ValueError("'broken_images' must be refuse: the published 'protocol' leaves no image out")
        if self.protocol == "coco2014-60-20" and self.crowds == "objects":
            raise ValueError("'crowds' must be ignore or auto: in the published 'protocol' they are no objects")
        return self
