"""Listen for events on this machine, and start one run after another for them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import uvicorn

from flows.http.listening import listening, origin_of, server_options
from flows.http.signature import VARIABLE
from flows.runtime.system_errors import sentence_of
from flows.triggers.app import Receiver, build_app
from flows.triggers.queue import Queue

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""Between two checks of the queue without an event: for what could not run because the workspace was busy."""
MOST_POLL_SECONDS = 300.0
"""The interval doubles up to this while runs die or the queue cannot be used."""
STOP_SECONDS = 15.0


def serve(receiver: Receiver, host: str, port: int, command: Sequence[str], say: Callable[[str], None]) -> None:
    """Receive events and carry them out until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        command: words of the `samif` command that does one run for everything that waits.
        say: called with one sentence at a time.

    Raises:
        ConfigError: the port is taken.
    """
    queue = Queue(receiver.root)
    if interrupted := queue.recover():
        say(f"{interrupted} requests were interrupted and wait again")
    worker = Worker(queue, command, say)
    with listening(host, port) as listener, worker:
        say(f"listening at {origin_of('http', host, listener)}/v1/events; Ctrl-C ends it")
        app = build_app(replace(receiver, wake=worker.wake, failure=worker.failure))
        # uvicorn raises the signal again once it has shut down: then the run has to be ended, too
        signal.signal(signal.SIGTERM, lambda *_: None)
        server = uvicorn.Server(uvicorn.Config(app, **server_options()))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        say("ending")


class Worker:
    """A thread that starts a process for whatever waits, one at a time, while its `with` block lasts. A run changes its
    process (working folder, environment) and may die; the receiver's process is not affected.

    A failure of the thread's own work, such as a queue that cannot be read, is logged, reported by `failure`, and tried
    again after a longer interval.
    """

    def __init__(self, queue: Queue, command: Sequence[str], say: Callable[[str], None]) -> None:
        self._queue, self._command, self._say = queue, command, say
        self._over, self._wake = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: str | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._wake.set()
        if self._process is not None:
            _end(self._process)
        self._thread.join(STOP_SECONDS)

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    def failure(self) -> str | None:
        """Why requests are not carried out at present; none where they are."""
        if not self._thread.is_alive() and not self._over.is_set():
            return "the thread that starts runs has ended; restart the receiver"
        return self._failure

    def _loop(self) -> None:
        while not self._over.is_set():
            try:
                failure = self._run_once()
            except Exception as error:
                failure = sentence_of(error)
                logger.info("the queue could not be worked on", exc_info=True)
            if failure is not None and failure != self._failure:
                self._say(f"waiting requests cannot be carried out: {failure}")
            self._failure = failure
            self._failures = self._failures + 1 if failure is not None else 0
            self._wake.wait(min(POLL_SECONDS * 2 ** min(self._failures, 10), MOST_POLL_SECONDS))
            self._wake.clear()

    def _run_once(self) -> str | None:
        """Start a process if something waits, and wait for it; a sentence if it died and its requests wait again."""
        if not any(item.state == "waiting" for item in self._queue.all()):
            return None
        self._process = process = _start(self._command)
        if self._over.is_set():
            _end(process)
        code = process.wait()
        # only this process starts runs for the queue: what is still marked as running belongs to one that was killed
        interrupted = self._queue.recover()
        if self._over.is_set():
            return None
        if interrupted:
            return f"a run was killed (exit code {code}); its {interrupted} requests wait and are tried again"
        if code:
            self._say(f"a run ended with exit code {code}, its error is above; the next event about it starts it again")
        return None


def _start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *words]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and the stages that it started."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS / 3)
            return


def worker_command(root: Path, address: str | None, shared: Sequence[Path]) -> list[str]:
    """Words of the `samif` command that carries out what waits in a workspace, here or on a cluster."""
    words = ["trigger", "work", "--workspace", str(root)]
    words += ["--address", address] if address else []
    return words + [word for folder in shared for word in ("--shared", str(folder))]
