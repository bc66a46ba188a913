"""What a session learnt, from which labels, in how many seconds: session.json beside its classifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from samif.config import BASE, SessionParams, Strict
from samif.io.document import Document


class Shot(Strict):
    """One labelled instance."""

    image: int
    annotation: int


class SessionRecord(Document):
    """`classes` are the new ones; `shots_used` says which labels each was learnt from (empty for the base)."""

    WHAT = "the record of a session"
    REMEDY = "run 'samif run', which writes it"

    name: str
    after: str | None
    classes: list[str]
    shots: int | None
    seed: int
    shots_used: dict[str, list[Shot]]
    seconds: float

    @classmethod
    def of_base(cls, classes: Iterable[str], seed: int, seconds: float) -> Self:
        return cls(
            name=BASE, after=None, classes=list(classes), shots=None, seed=seed, shots_used={},
            seconds=round(seconds, 3),
        )  # fmt: skip

    @classmethod
    def of_session(
        cls, name: str, params: SessionParams, shots: Mapping[str, Sequence[tuple[int, int]]], seconds: float
    ) -> Self:
        used = {c: [Shot(image=p, annotation=a) for p, a in places] for c, places in shots.items()}
        return cls(
            name=name, after=params.after, classes=list(params.classes), shots=params.shots, seed=params.seed,
            shots_used=used, seconds=round(seconds, 3),
        )  # fmt: skip
