"""Stop a run that is under way on this machine, as Ctrl-C does; what is computed is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import psutil

from flows.pipeline.run import Record, last_run
from flows.runtime.process import ProcessIdentity
from flows.workspace.layout import Layout
from samif.errors import ConfigError, ObjectMissing, ServiceUnavailable

POLL_SECONDS = 0.1


def interrupt(pid: int) -> None:
    """Send SIGINT to a process and to those that it started in its group, as a terminal does at Ctrl-C: DVC ignores the
    signal while a stage runs, and waits for the stage to end by it. Nothing happens if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(process.pid) == group:
                    process.send_signal(signal.SIGINT)


def running(root: Path) -> Record | None:
    """The record of the run that is under way in a workspace; none where none is, also after one was killed.

    Raises:
        ConfigError: it runs on another machine.
    """
    record = last_run(root)
    if record is None or record["outcome"] != "running" or "process" not in record:
        return None
    process = ProcessIdentity.model_validate(record["process"])
    if process.host != socket.gethostname():
        raise ConfigError(f"the run in {root} is on {process.host}; cancel it there")
    return None if process.is_gone else record


def cancel_run(root: Path, patience: float) -> Record:
    """Interrupt the run of a workspace and wait until it has ended; its record.

    Args:
        root: the workspace.
        patience: seconds to wait.

    Raises:
        ObjectMissing: no run is under way.
        ServiceUnavailable: it has not ended in time.
        ConfigError: it runs on another machine.
    """
    found = running(root)
    if found is None:
        raise ObjectMissing(f"no run is under way in {Layout(root).root.resolve()}; there is nothing to cancel")
    process = ProcessIdentity.model_validate(found["process"])
    interrupt(process.pid)
    deadline = time.monotonic() + patience
    while not process.is_gone:
        if time.monotonic() > deadline:
            raise ServiceUnavailable(
                f"the run of process {process.pid} was interrupted and has not ended after {patience:.0f} s; wait, or "
                "cancel again"
            )
        time.sleep(POLL_SECONDS)
    record = last_run(root)
    return found if record is None else record


def what_stands(record: Record) -> str:
    """One sentence: what a cancelled run has finished."""
    if record["outcome"] == "done":
        return f"the run by {record['who']} had ended before it was interrupted"
    done = [stage["stage"] for stage in record["stages"]]
    count = f"{len(done)} stage{'s' if len(done) != 1 else ''} finished ({', '.join(done)}) and kept"
    finished = count if done else "no stage had finished"
    return f"cancelled the run by {record['who']}: {finished}; 'samif run' goes on from there"
