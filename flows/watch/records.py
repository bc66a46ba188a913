"""The lines of the history: one strict model per kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, TypeAdapter

from samif.config import Strict

Side = Literal["low", "high", "differs"]


class FileIdentity(Strict):
    """A file as it was met: its name below the watched folder, bytes, and time of its last change in nanoseconds."""

    name: str
    size: int
    modified: int


class ImageSeen(Strict):
    """An image of the stream. `place` is the embedding's, in the directions of the reference; `doubt` that of its
    doubtful objects, which earlier releases did not look at."""

    kind: Literal["image"] = "image"
    time: AwareDatetime
    reference: str
    file: FileIdentity
    values: dict[str, float]
    place: tuple[float, ...]
    doubt: tuple[float, ...] = ()


class Unreadable(Strict):
    """A file of the stream that is no usable image."""

    kind: Literal["unreadable"] = "unreadable"
    time: AwareDatetime
    file: FileIdentity
    reason: str


class Alarm(Strict):
    """Something is no longer as it was. `images` is how many of the stream had been seen; `id` names the alarm."""

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

    @property
    def key(self) -> tuple[str, str]:
        return self.subject, self.side


class Cleared(Strict):
    """An alarm no longer holds."""

    kind: Literal["cleared"] = "cleared"
    time: AwareDatetime
    alarm: str
    sentence: str


class Replayed(Strict):
    """The live version was scored again on the frozen images; without `complaints` all came out as registered."""

    kind: Literal["replay"] = "replay"
    time: AwareDatetime
    model: str
    complaints: tuple[str, ...]
    images: int
    encoded: int
    seconds: float


class Told(Strict):
    """The webhook took an alarm."""

    kind: Literal["told"] = "told"
    time: AwareDatetime
    alarm: str


Record = Annotated[
    ImageSeen | Unreadable | Alarm | Cleared | Replayed | Told,
    Field(discriminator="kind"),
]
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
