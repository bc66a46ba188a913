"""Lines for a person on standard error: progress as a bar on a terminal, as plain lines elsewhere, and messages."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from flows.runtime.log_format import is_json, json_line

PLAIN_SECONDS = 5.0
"""Shortest time between two plain lines."""


class Tracker(Protocol):
    """Counts finished units."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more finished units."""

    def quarantine(self, n: int) -> None:
        """Count `n` units that could not be used; `advance` counts them as well."""

    def note(self, text: str) -> None:
        """Show a message."""


@contextmanager
def track(total: int, unit: str, description: str, stream: TextIO | None = None) -> Iterator[Tracker]:
    """Show count, rate per second and remaining time of `total` units inside the context.

    Args:
        total: number of units to come.
        unit: plural noun, such as "images".
        description: the work, such as "embed".
        stream: standard error unless given; a bar if it is a terminal, else a line at the start, at most one every
            5 seconds, and one at the end.
    """
    stream = stream or sys.stderr
    if stream.isatty() and not is_json():
        with _bar(total, unit, description, stream) as tracker:
            yield tracker
        return
    lines = _Lines(total, unit, description, stream)
    try:
        yield lines
    finally:
        lines.finish()


def say(text: str) -> None:
    """Print one line, above a progress bar if there is one; as a line of JSON where logs are."""
    write_line(json_line(text) if is_json() else text)


def write_line(text: str) -> None:
    """Print one line as it is, above a progress bar if there is one."""
    print(text, file=sys.stderr, flush=True)


class _Lines:
    def __init__(self, total: int, unit: str, description: str, stream: TextIO) -> None:
        self._total, self._unit, self._description, self._stream = total, unit, description, stream
        self._done = self._quarantined = 0
        self._started = self._printed = time.monotonic()
        self._print(f"0/{total} {unit}")

    def advance(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._printed >= PLAIN_SECONDS and self._done < self._total:
            self._printed = now
            rate = self._done / (now - self._started)
            left = f", {(self._total - self._done) / rate:.0f} s left" if rate > 0 else ""
            self._print(
                f"{self._done}/{self._total} {self._unit}, {rate:.1f}/s{left}{_quarantined_text(self._quarantined)}"
            )

    def quarantine(self, n: int) -> None:
        self._quarantined += n

    def note(self, text: str) -> None:
        self._print(text)

    def finish(self) -> None:
        seconds = time.monotonic() - self._started
        rate = self._done / max(seconds, 1e-9)
        counts = f"{self._done}/{self._total} {self._unit} in {seconds:.1f} s, {rate:.1f}/s"
        self._print(counts + _quarantined_text(self._quarantined))

    def _print(self, text: str) -> None:
        line = f"{self._description}: {text}"
        print(json_line(line, logger="samif.progress") if is_json() else line, file=self._stream, flush=True)


def _quarantined_text(quarantined: int) -> str:
    return f", {quarantined} quarantined" if quarantined else ""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("-/s" if speed is None else f"{speed:.1f}/s")


class _Bar:
    def __init__(self, progress: Progress, total: int, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, quarantined="")
        self._quarantined = 0

    def advance(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)

    def quarantine(self, n: int) -> None:
        self._quarantined += n
        self._progress.update(self._task, quarantined=_quarantined_text(self._quarantined))

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


@contextmanager
def _bar(total: int, unit: str, description: str, stream: TextIO) -> Iterator[_Bar]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "{task.fields[quarantined]}", markup=False),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        yield _Bar(progress, total, description)
