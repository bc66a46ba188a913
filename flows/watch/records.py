"""The lines of the history: one strict model per kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, TypeAdapter

from samif.config import Strict

Side = Literal["low", "high", "differs"]


class FileIdentity(Strict):
    """A file of the stream: its name relative to the watched folder, bytes, and modification time in nanoseconds."""

    name: str
    size: int
    modified: int


class ImageObserved(Strict):
    """An image of the stream: its statistics, and its embedding and uncertainty in the projections of the reference."""

    kind: Literal["image"] = "image"
    time: AwareDatetime
    reference: str
    file: FileIdentity
    values: dict[str, float]
    embedding: tuple[float, ...]
    uncertainty: tuple[float, ...]


class Unreadable(Strict):
    """A file of the stream that is no usable image."""

    kind: Literal["unreadable"] = "unreadable"
    time: AwareDatetime
    file: FileIdentity
    reason: str


class Alarm(Strict):
    """A statistic beyond a control limit, or a replay with other results. `images` is the number of images observed so
    far; `id` identifies the alarm at the webhook. `examples` are files of the stream, below `folder`: of the
    images that the level averages, those that moved it the most, most first."""

    kind: Literal["alarm"] = "alarm"
    time: AwareDatetime
    id: str
    source: Literal["stream", "replay"]
    model: str
    reference: str
    subject: str
    side: Side
    level: float | None = None
    limit: float | None = None
    images: int
    sentence: str
    folder: str | None = None
    examples: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.subject, self.side


class Cleared(Strict):
    """The end of an alarm, by its id."""

    kind: Literal["cleared"] = "cleared"
    time: AwareDatetime
    alarm: str
    sentence: str


class Replayed(Strict):
    """A replay: the version scored again on the validation images; without `differences` the results are those of the
    registration."""

    kind: Literal["replay"] = "replay"
    time: AwareDatetime
    model: str
    differences: tuple[str, ...]
    images: int
    encoded: int
    seconds: float


class Notified(Strict):
    """The webhook accepted an alarm, by its id."""

    kind: Literal["notified"] = "notified"
    time: AwareDatetime
    alarm: str


Record = Annotated[
    ImageObserved | Unreadable | Alarm | Cleared | Replayed | Notified,
    Field(discriminator="kind"),
]
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
