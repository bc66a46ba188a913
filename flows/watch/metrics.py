"""What Prometheus is told: over HTTP while `samif watch run` goes on, and as a file for a textfile collector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server, write_to_textfile

from flows.watch.history import State
from samif.errors import SamifError

if TYPE_CHECKING:
    from samif.watch.charts import Reading
    from samif.watch.rules import Due

DUE = ("re-evaluation", "new session", "partial retraining")


class Metrics:
    """The numbers of one watcher, with a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._level = Gauge("samif_watch_level", "Where a chart stands.", ["statistic"], registry=self.registry)
        self._limit = Gauge(
            "samif_watch_limit", "Beyond which it alarms.", ["statistic", "side"], registry=self.registry
        )
        self._alarm = Gauge("samif_watch_alarm", "1 while an alarm holds.", ["subject", "side"], registry=self.registry)
        self._due = Gauge("samif_watch_due", "1 while something is due.", ["what"], registry=self.registry)
        self._images = Gauge(
            "samif_watch_images", "Images seen with this version and reference.", registry=self.registry
        )
        self._unreadable = Gauge("samif_watch_unreadable", "Files that were no usable images.", registry=self.registry)
        self._replay = Gauge("samif_watch_replay_time_seconds", "When the last replay ended.", registry=self.registry)
        self._replay_bad = Gauge("samif_watch_replay_complaints", "What it found to differ.", registry=self.registry)
        self.failed_looks = Counter("samif_watch_failed_looks", "Looks that ended early.", registry=self.registry)

    def show(self, state: State, readings: Sequence[Reading], due: Sequence[Due]) -> None:
        """Set everything to what is known now."""
        for gauge in (self._level, self._limit, self._alarm):
            gauge.clear()
        for reading in readings:
            self._level.labels(reading.name).set(reading.level)
            for side, limit in (("low", reading.low), ("high", reading.high)):
                if limit is not None:
                    self._limit.labels(reading.name, side).set(limit)
                    self._alarm.labels(reading.name, side).set(0)
        for subject, side in state.standing:
            self._alarm.labels(subject, side).set(1)
        found = {item.what for item in due}
        for what in DUE:
            self._due.labels(what).set(what in found)
        self._images.set(state.images)
        self._unreadable.set(state.unreadable)
        if state.replay is not None:
            self._replay.set(state.replay.time.timestamp())
            self._replay_bad.set(len(state.replay.complaints))

    def write(self, path: Path) -> None:
        """The same as a file, whole or not at all."""
        write_to_textfile(str(path), self.registry)

    def serve(self, port: int) -> int:
        """Answer on this machine's loopback for as long as the process lives; returns the port (0 takes a free one).

        Raises:
            SamifError: the port is taken.
        """
        try:
            server, _ = start_http_server(port, "127.0.0.1", self.registry)
        except OSError as error:
            raise SamifError(f"cannot answer on port {port}: {error.strerror}; give another --metrics-port") from None
        return int(server.server_port)
