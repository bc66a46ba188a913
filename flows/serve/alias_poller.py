"""Polls the alias of a line; a refresh request polls at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

SLICE_SECONDS = 0.05
"""How soon a hint is noticed, and so how often hints can make it look."""


class Follower:
    """A thread that calls `look` every `interval` seconds, and soon after the file `hint` was touched.

    Polling is the truth: a hint says only that now is a good time, so nothing is read from it and none is missed.
    """

    def __init__(self, look: Callable[[], None], interval: float, hint: Path) -> None:
        self._look, self._interval, self._hint = look, interval, hint
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the look that is under way."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            seen = hinted(self._hint)
            self._look()
            until = time.monotonic() + self._interval
            while (left := until - time.monotonic()) > 0 and hinted(self._hint) == seen:
                if self._stop.wait(min(SLICE_SECONDS, left)):
                    return


def hinted(path: Path) -> int:
    """When the hint was last given, in nanoseconds; 0 for never."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
