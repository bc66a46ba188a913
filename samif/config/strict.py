"""What every model of params.yaml is built of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Points = Annotated[float, Field(ge=0.0, le=100.0)]


class Strict(BaseModel):
    """Frozen; refuses unknown keys and silent conversions (a quoted "10" is not a number)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def is_none(value: object) -> bool:
    """For a key that came later: without it, a dump and its digest are what they always were."""
    return value is None


def is_empty(value: object) -> bool:
    return not value


def is_false(value: object) -> bool:
    return value is False
