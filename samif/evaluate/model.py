"""The result of an evaluation: the contract between evaluation, report, gates and registry."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from samif.classifier.operating_point import NamingRates
from samif.config import Strict
from samif.io.document import Document

BACKGROUND = "background"
"""Last label of a confusion matrix: no object (row), or no detection (column)."""

Group = Literal["base", "novel"]
Points = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class ClassGroups(Strict):
    """Class names that the classifier knows, in row order."""

    base: list[str]
    novel: list[str]


class GroupScores(Strict):
    """One score in points (0-100) per group of classes; None where a group has no instance."""

    base: Points | None
    novel: Points | None
    all: Points | None


class ClassScore(Strict):
    """COCO segm AP and AP50 of one class in points, and the instances that they rest on."""

    ap: Points | None
    ap50: Points | None
    instances: Count
    group: Group


class BaseOnly(Strict):
    """Base-class scores on the images that show base objects only: comparable over sessions."""

    images: Count
    ap: Points | None
    ap50: Points | None


class Unknown(Strict):
    """Rejection of unknown objects, those of no known class.

    Attributes:
        auroc: area under the ROC curve (0-1) of known against unknown objects, by the best score on each; None without
            objects of both kinds.
        unlabelled_false_positives_per_image: see `samif.evaluate.matching.Matched`; None without images.
        objects: unknown objects that were found.
    """

    auroc: Unit | None
    unlabelled_false_positives_per_image: NonNegative | None
    objects: Count


class Confusion(Strict):
    """Counts at the operating score. Rows are the truth, columns the prediction; the last label is background."""

    labels: list[str]
    matrix: list[list[Count]]

    @model_validator(mode="after")
    def _square(self) -> Self:
        size = len(self.labels)
        if not self.labels or self.labels[-1] != BACKGROUND:
            raise ValueError(f"the last of 'labels' must be '{BACKGROUND}'")
        if len(self.matrix) != size or any(len(row) != size for row in self.matrix):
            raise ValueError(f"'matrix' must be {size} x {size}, as 'labels' has {size} names")
        return self


class ClassNaming(Strict):
    """Names of one class: the score from which it is named (None without an operating point) and their rates."""

    score: NonNegative | None
    rates: NamingRates


class Naming(Strict):
    """Names at the operating point, and at every score.

    Attributes:
        limit: false names per 1,000 images that the operating point allows; None without one.
        rates: on these images, at the operating point.
        curve: at scores from 1 to 0.
    """

    limit: NonNegative | None
    rates: NamingRates
    classes: dict[str, ClassNaming]
    curve: list[NamingRates]


class Evaluation(Document):
    """The evaluation of one classifier, `base` or a session, on the validation images."""

    WHAT = "an evaluation"
    REMEDY = "run the evaluation again ('samif run')"

    name: str
    classes: ClassGroups
    images: Count
    dataset: str
    ap: GroupScores
    ap50: GroupScores
    per_class: dict[str, ClassScore]
    base_only: BaseOnly
    unknown: Unknown
    confusion: Confusion
    naming: Naming | None = Field(default=None, exclude_if=lambda naming: naming is None)
    operating_score: Unit
    seconds: NonNegative

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        groups: dict[str, Group] = dict.fromkeys(self.classes.base, "base")
        groups |= dict.fromkeys(self.classes.novel, "novel")
        if len(groups) != len(self.classes.base) + len(self.classes.novel):
            raise ValueError("'classes' names a class twice")
        if {name: score.group for name, score in self.per_class.items()} != groups:
            raise ValueError("'per_class' must have each class of 'classes' once, in the same group")
        return self
