"""The history of `samif watch`: an append-only file of JSON lines, on the disk before any alarm is sent.

A line that a crash cut short does not count: readers skip it, and the next writer removes it. One process writes at a
time. `State` is computed from the lines alone.
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
from flows.watch.records import (
    RECORD,
    Alarm,
    Cleared,
    FileIdentity,
    ImageObserved,
    Notified,
    Record,
    Replayed,
    Unreadable,
)
from flows.workspace.lock import BusyError
from samif.errors import IntegrityError

WINDOWS = 20
"""Number of windows of images that levels are computed from; earlier images weigh less than 1e-15."""


@dataclass
class State:
    """The state after all lines, for levels of `window` images.

    Attributes:
        files: all files of the stream so far.
        reference: digest of the reference of the newest image.
        images: number of images observed with it.
        recent: the newest of these.
        active: active alarms, by subject and side.
        notified: ids of alarms that the webhook accepted.
        replay: the newest replay.
        unreadable: number of files that were no usable images.
    """

    window: int
    files: set[FileIdentity] = field(default_factory=set)
    reference: str = ""
    images: int = 0
    recent: deque[ImageObserved] = field(default_factory=deque)
    active: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    notified: set[str] = field(default_factory=set)
    replay: Replayed | None = None
    unreadable: int = 0

    def add(self, record: Record) -> None:
        """Apply one more line."""
        if isinstance(record, ImageObserved):
            if record.reference != self.reference:
                self.reference, self.images = record.reference, 0
                self.recent = deque(maxlen=WINDOWS * self.window)
            self.files.add(record.file)
            self.images += 1
            self.recent.append(record)
        elif isinstance(record, Unreadable):
            self.files.add(record.file)
            self.unreadable += 1
        elif isinstance(record, Alarm):
            self.active[record.key] = record
        elif isinstance(record, Cleared):
            self.active = {key: alarm for key, alarm in self.active.items() if alarm.id != record.alarm}
        elif isinstance(record, Replayed):
            self.replay = record
        elif isinstance(record, Notified):
            self.notified.add(record.alarm)


class History:
    """The file `history.jsonl` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.jsonl"

    def read(self) -> Iterator[Record]:
        """All complete lines, oldest first.

        Raises:
            IntegrityError: a line is damaged, or of an earlier release.
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
                    raise IntegrityError(
                        f"line {number} of {self.path} is damaged or was written by an earlier release ({what}); "
                        "restore the file, or move it away to begin a new history"
                    ) from None

    def state(self, window: int) -> State:
        """The state after all lines."""
        state = State(window)
        for record in self.read():
            state.add(record)
        return state

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the history for one process; call `append` inside. The kernel releases the lock when the process ends.

        Raises:
            BusyError: another process watches this workspace.
        """
        folder = self.path.parent
        busy = BusyError(f"another 'samif watch run' uses {folder}; wait until it ends, or stop it")
        with held(self.path.with_name("lock"), busy):
            self._remove_partial_line()
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

    def _remove_partial_line(self) -> None:
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
