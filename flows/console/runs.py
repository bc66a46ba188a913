"""Runs that the console starts: `samif run` as a process of its own, followed by what it writes, and cancelled."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Literal

from flows.console.time_left import time_left
from flows.pipeline.cancel import interrupt
from flows.pipeline.run import last_run, stage_seconds
from flows.runtime.log_format import FORMAT_VARIABLE
from flows.workspace.lock import busy_error
from samif.errors import SystemRefused

PROGRESS = re.compile(
    r"(?P<work>[^:]+): (?P<done>\d+)/(?P<total>\d+) (?P<unit>\w+)(?:, (?P<rate>[\d.]+)/s)?(?:, (?P<left>\d+) s left)?"
)
STAGE = re.compile(r"stage (?P<stage>\S+)")
MOST_LINES = 200
STOP_SECONDS = 20.0
FOLLOW_SECONDS = 0.5
_TAIL_BYTES = 64_000

State = Literal["running", "done", "failed", "cancelled"]


@dataclass
class _Started:
    """A run that this process has started."""

    process: subprocess.Popen[bytes]
    log: Path
    who: str
    why: str
    at: float
    cancelled: bool = False
    begun: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    def note_stages(self) -> None:
        """Note when each stage began; `took` is what each took when it ran last."""
        for line in _tail(self.log):
            if found := STAGE.match(line):
                self.begun.setdefault(found["stage"].rstrip(":"), time.time())


class Runs:
    """The run of one workspace; at most one at a time, as everywhere."""

    def __init__(self, root: Path, state: Path) -> None:
        self._root, self._state, self._lock = root, state, Lock()
        self._started: _Started | None = None

    def start(self, who: str, why: str) -> None:
        """Start `samif run`.

        Raises:
            BusyError: one that was started here is under way. One that was started elsewhere ends the new one with the
                same sentence.
            SystemRefused: no process can be started.
        """
        with self._lock:
            if self._started is not None and self._started.process.poll() is None:
                raise busy_error(self._root)
            self._state.mkdir(parents=True, exist_ok=True)
            log = self._state / "run.log"
            words = ["run", "--workspace", str(self._root), "--who", who, "--why", why]
            command = [sys.executable, "-c", "from flows.cli import main; main()", *words]
            try:
                with log.open("wb") as out:
                    process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                        env=os.environ | {"PYTHONUNBUFFERED": "1", FORMAT_VARIABLE: "text"},  # its lines are read
                    )  # fmt: skip
            except OSError as error:
                raise SystemRefused(f"no run can be started ({error.strerror}); free memory or the disk") from None
            self._started = _Started(process, log, who, why, time.time(), took=stage_seconds(self._root))
            Thread(target=_follow, args=(self._started,), daemon=True).start()

    def cancel(self) -> bool:
        """Interrupt the run, as Ctrl-C does; False where none is under way. What is computed is kept."""
        with self._lock:
            started = self._started
            if started is None or started.process.poll() is not None:
                return False
            started.cancelled = True
            interrupt(started.process.pid)
            return True

    def end(self) -> None:
        """Cancel, and wait until the process has ended."""
        if self.cancel() and self._started is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._started.process.wait(STOP_SECONDS)
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._started.process.pid, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """State of the run that was started here: {"state", "who", "why", "seconds", "stage", "progress", "whole",
        "error", "lines"}, `state` none before the first; `last` is the record of the workspace's latest run."""
        started, last = self._started, last_run(self._root)
        content: dict[str, Any] = {"state": None, "last": _short(last) if last else None}
        if started is None:
            return content
        code = started.process.poll()
        lines = _tail(started.log)
        state: State = "running" if code is None else "cancelled" if started.cancelled else "failed" if code else "done"
        error = next((line.removeprefix("samif: ") for line in reversed(lines) if line.startswith("samif: ")), None)
        started.note_stages()
        progress = _progress(lines) if state == "running" else None
        stages = list(started.begun)
        return content | {
            "state": state,
            "who": started.who,
            "why": started.why,
            "seconds": round(time.time() - started.at, 1),
            "stage": stages[-1] if stages else None,
            "stages": stages,
            "progress": progress,
            "whole": self._whole(started, last, progress) if state == "running" else None,
            "error": error if state == "failed" else None,
            "lines": lines[-MOST_LINES:],
        }

    def _whole(
        self, started: _Started, record: Mapping[str, Any] | None, progress: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """The time left of the whole run, none before its record says which stages it has to run."""
        if record is None or datetime.fromisoformat(record["started"]).timestamp() < started.at:
            return None
        planned = [reason["stage"] for reason in record["reasons"] if reason["will_run"]]
        counted = progress["left"] if progress else None
        return asdict(time_left(planned, dict(started.begun), started.took, time.time(), counted))


def _follow(started: _Started) -> None:
    """Note the stages of a run while it is under way, whether somebody looks at it or not."""
    while started.process.poll() is None:
        started.note_stages()
        time.sleep(FOLLOW_SECONDS)


def _progress(lines: list[str]) -> dict[str, Any] | None:
    """The newest count: {"work", "done", "total", "unit", "rate", "left"}, rate per second, seconds left."""
    for line in reversed(lines):
        if STAGE.match(line):
            return None
        if found := PROGRESS.match(line):
            rate, left = found["rate"], found["left"]
            return {
                "work": found["work"],
                "done": int(found["done"]),
                "total": int(found["total"]),
                "unit": found["unit"],
                "rate": float(rate) if rate else None,
                "left": int(left) if left else None,
            }
    return None


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _short(record: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("id", "who", "why", "started", "ended", "outcome", "error", "stages", "versions", "up_to_date")
    return {key: record.get(key) for key in keys}
