"""The history of what was watched: JSON lines, only ever appended, durable before anybody is told.

A line that a crash cut short was never there: readers leave it out, and the next writer cuts it off. One process writes
at a time. `State` is the fold over all lines: there is no other memory, so nothing can disagree with the history.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from flows.runtime.locks import held
from flows.watch.records import RECORD, Alarm, Cleared, FileIdentity, ImageSeen, Record, Replayed, Told, Unreadable
from samif.errors import SamifError

KEPT = 20
"""Windows of images that levels are folded from: what lies before weighs less than 1e-15."""


@dataclass
class State:
    """What the history says now, for levels of so many images (`window`).

    Attributes:
        seen: files that were looked at.
        reference: digest of the reference of the newest image.
        images: how many images were seen with it.
        recent: the newest of these.
        standing: alarms that hold, by subject and side.
        told: ids of alarms that the webhook took.
        replay: the newest replay.
        unreadable: how many files were no images.
    """

    window: int
    seen: set[FileIdentity] = field(default_factory=set)
    reference: str = ""
    images: int = 0
    recent: deque[ImageSeen] = field(default_factory=deque)
    standing: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    replay: Replayed | None = None
    unreadable: int = 0

    def add(self, record: Record) -> None:
        """Take up one more line."""
        if isinstance(record, ImageSeen):
            if record.reference != self.reference:
                self.reference, self.images = record.reference, 0
                self.recent = deque(maxlen=KEPT * self.window)
            self.seen.add(record.file)
            self.images += 1
            self.recent.append(record)
        elif isinstance(record, Unreadable):
            self.seen.add(record.file)
            self.unreadable += 1
        elif isinstance(record, Alarm):
            self.standing[record.key] = record
        elif isinstance(record, Cleared):
            self.standing = {key: alarm for key, alarm in self.standing.items() if alarm.id != record.alarm}
        elif isinstance(record, Replayed):
            self.replay = record
        elif isinstance(record, Told):
            self.told.add(record.alarm)


class History:
    """The file `history.jsonl` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.jsonl"

    def read(self) -> Iterator[Record]:
        """All whole lines, oldest first.

        Raises:
            SamifError: a line is damaged (says which).
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield RECORD.validate_json(line)
                except ValidationError as error:
                    what = error.errors()[0]["msg"]
                    raise SamifError(
                        f"line {number} of {self.path} is damaged ({what}); restore the file, or move it away to begin "
                        "a new history"
                    ) from None

    def state(self, window: int) -> State:
        """The fold over all lines."""
        state = State(window)
        for record in self.read():
            state.add(record)
        return state

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the history alone; `append` belongs inside. The kernel lets go at any death.

        Raises:
            SamifError: another process watches this workspace.
        """
        folder = self.path.parent
        busy = SamifError(f"another 'samif watch run' is at work in {folder}; wait for it, or end it first")
        with held(self.path.with_name("lock"), busy):
            self._cut_torn_line()
            yield

    def append(self, records: Iterable[Record]) -> None:
        """Write lines; they are on the disk when this returns."""
        text = b"".join(record.model_dump_json().encode() + b"\n" for record in records)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while text:
                text = text[os.write(descriptor, text) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            size = end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(0, end - (1 << 16))
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
            if end < size:
                file.truncate(end)
