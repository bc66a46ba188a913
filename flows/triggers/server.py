"""Listen for events on this machine, and start one run after another for what they ask."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import uvicorn

from flows.http.signature import VARIABLE
from flows.triggers.app import Receiver, build_app
from flows.triggers.queue import Queue
from samif.errors import SamifError

POLL_SECONDS = 5.0
"""Between two looks at the queue without an event: for what could not run because the workspace was busy."""
STOP_SECONDS = 15.0


def serve(receiver: Receiver, host: str, port: int, work: Sequence[str], say: Callable[[str], None]) -> None:
    """Receive events and carry them out until SIGINT or SIGTERM.

    Args:
        port: 0 takes a free one.
        work: words of the `samif` command that does one run for everything that waits.
        say: called with one sentence at a time.

    Raises:
        SamifError: the port is taken.
    """
    queue = Queue(receiver.root)
    if back := queue.recover():
        say(f"{back} requests were broken off and wait again")
    wake = threading.Event()
    with _listening(host, port) as listener, _working(queue, work, wake, say):
        shown = f"[{host}]" if ":" in host else host
        say(f"listening at http://{shown}:{listener.getsockname()[1]}/v1/events; Ctrl-C ends it")
        app = build_app(replace(receiver, wake=wake.set))
        # uvicorn raises the signal again once it has shut down: then the run has to be ended, too
        signal.signal(signal.SIGTERM, lambda *_: None)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, server_header=False))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        say("ending")


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SamifError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from None
    with listener:
        yield listener


@contextlib.contextmanager
def _working(queue: Queue, work: Sequence[str], wake: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Inside, a thread starts a process for whatever waits, one at a time. A run changes its process (working folder,
    environment) and may die; neither is for the one that listens."""
    over = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def loop() -> None:
        while not over.is_set():
            if any(item.state == "waiting" for item in queue.all()):
                process = _start(work)
                running[:] = [process]
                if over.is_set():
                    _end(process)
                code = process.wait()
                if code and not over.is_set():
                    say(f"a run ended with exit code {code}, its sentence stands above; its event queues it again")
            wake.wait(POLL_SECONDS)
            wake.clear()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        wake.set()
        for process in running:
            _end(process)
        thread.join(STOP_SECONDS)


def _start(work: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *work]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and the stages that it started."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS / 3)
            return


def words_of(root: Path, address: str | None, shared: Sequence[Path]) -> list[str]:
    """The command that carries out what waits in a workspace, here or on a cluster."""
    words = ["trigger", "work", "--workspace", str(root)]
    words += ["--address", address] if address else []
    return words + [word for folder in shared for word in ("--shared", str(folder))]
