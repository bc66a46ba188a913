"""Polls an alias; a refresh request polls at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

SLICE_SECONDS = 0.05
"""How soon a refresh request is noticed, and so how often such requests can cause a poll."""

logger = logging.getLogger(__name__)


class AliasPoller:
    """A thread that calls `poll` every `interval` seconds, and soon after the file `request` was touched.

    A request only makes the next poll come earlier: nothing is read from it, and a lost one costs no more than
    `interval`.
    """

    def __init__(self, poll: Callable[[], None], interval: float, request: Path) -> None:
        self._poll, self._interval, self._request = poll, interval, request
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alias-poller", daemon=True)

    def start(self) -> None:
        """Poll from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End after the poll in progress."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it ends at an exception of `poll`, which is logged."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                seen = requested_at(self._request)
                self._poll()
                until = time.monotonic() + self._interval
                while (left := until - time.monotonic()) > 0 and requested_at(self._request) == seen:
                    if self._stop.wait(min(SLICE_SECONDS, left)):
                        return
        except Exception:
            logger.exception("polling ended")
            raise


def requested_at(path: Path) -> int:
    """Time of the last refresh request, in nanoseconds; 0 for none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
