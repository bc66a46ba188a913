"""What an evaluation says, as a strict, frozen model: the contract between evaluation, report, gates and registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from samif.config import Strict
from samif.errors import SamifError
from samif.io import files

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
    """Rejection of objects that bear no known name: AUROC (0-1), and name tags hung on them per image."""

    auroc: Unit | None
    false_tags_per_image: NonNegative | None
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


class Evaluation(Strict):
    """The evaluation of one classifier, `base` or a session, on the validation images."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
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

    def save(self, path: Path) -> None:
        """Write `path` as JSON, whole or not at all; its folder is made where it is missing."""
        files.commit(path, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check an `evaluation.json`.

        Raises:
            SamifError: the file is missing or breaks the schema.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise SamifError(f"{path} does not exist; run the evaluation of '{path.parent.name}' first") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "(whole file)"
            raise SamifError(
                f"{path} is not an evaluation of schema 1: key '{where}': {first['msg']}; run the evaluation again"
            ) from None
