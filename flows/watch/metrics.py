"""Prometheus metrics: over HTTP while `samif watch run` is running, and as a file for a textfile collector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server, write_to_textfile

from flows.watch.history import State
from samif.errors import ConfigError
from samif.watch.rules import Action

if TYPE_CHECKING:
    from samif.watch.charts import Reading
    from samif.watch.rules import Recommendation


class Metrics:
    """The metrics of one watcher, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"samif_watch_{name}", text, labels, registry=self.registry)

        self._level = gauge("level", "Level of a control chart.", "statistic")
        self._limit = gauge("limit", "Control limit of a chart.", "statistic", "side")
        self._alarm = gauge("alarm", "1 while an alarm is active.", "subject", "side")
        self._recommended = gauge("recommended_action", "1 while an action is recommended.", "action")
        self._images = gauge("images", "Images observed with this version and reference.")
        self._unreadable = gauge("unreadable_files", "Files that were no usable images.")
        self._replay = gauge("replay_timestamp_seconds", "Time of the last replay.")
        self._differences = gauge("replay_differences", "Differences that the last replay found.")
        self.failed_polls = Counter("samif_watch_failed_polls", "Polls that failed.", registry=self.registry)

    def update(self, state: State, readings: Sequence[Reading], recommended: Sequence[Recommendation]) -> None:
        """Set all gauges."""
        for gauge in (self._level, self._limit, self._alarm):
            gauge.clear()
        for reading in readings:
            self._level.labels(reading.name).set(reading.level)
            for side, limit in (("low", reading.low), ("high", reading.high)):
                if limit is not None:
                    self._limit.labels(reading.name, side).set(limit)
                    self._alarm.labels(reading.name, side).set(0)
        for subject, side in state.active:
            self._alarm.labels(subject, side).set(1)
        actions = {item.action for item in recommended}
        for action in get_args(Action):
            self._recommended.labels(action).set(action in actions)
        self._images.set(state.images)
        self._unreadable.set(state.unreadable)
        if state.replay is not None:
            self._replay.set(state.replay.time.timestamp())
            self._differences.set(len(state.replay.differences))

    def write(self, path: Path) -> None:
        """Write all metrics to a file, atomically."""
        write_to_textfile(str(path), self.registry)

    def serve(self, port: int) -> int:
        """Serve the metrics on loopback until the process ends; returns the port (0 takes a free one).

        Raises:
            ConfigError: the port is in use.
        """
        try:
            server, _ = start_http_server(port, "127.0.0.1", self.registry)
        except OSError as error:
            raise ConfigError(f"cannot listen on port {port}: {error.strerror}; give another --metrics-port") from None
        return int(server.server_port)
