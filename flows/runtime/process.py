"""Identity of a process across machines, whether it still runs, and processes that end together."""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import cache

import psutil

from samif.config import Strict

RUN_VARIABLE = "SAMIF_RUN_PID"
"""Environment variable of a stage: process id of the `samif run` that it belongs to."""


class ProcessIdentity(Strict):
    """A process: the time of its start (seconds) tells it from a later one of the same number."""

    host: str
    pid: int
    started: float

    @property
    def is_gone(self) -> bool:
        """It ran on this machine and has ended; False for a process of another machine, whose state is unknown."""
        if self.host != socket.gethostname():
            return False
        try:
            found = psutil.Process(self.pid)
            dead = found.status() == psutil.STATUS_ZOMBIE  # its parent has not waited for it yet
            return bool(dead or abs(found.create_time() - self.started) > 1.0)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def this_process() -> ProcessIdentity:
    """The identity of the caller's process (of a child after a fork, too)."""
    return _own_identity(os.getpid())


@cache
def _own_identity(pid: int) -> ProcessIdentity:
    return identity_of(pid)


def identity_of(pid: int) -> ProcessIdentity:
    """The identity of a process of this machine, which is running or not yet waited for."""
    return ProcessIdentity(host=socket.gethostname(), pid=pid, started=round(psutil.Process(pid).create_time(), 2))


def end_with(pid: int) -> None:
    """Interrupt this process when ancestor `pid` has ended, however it ended; to be called in the main thread.

    The kernel's PR_SET_PDEATHSIG covers the parent only, and there may be a shell between.

    Raises:
        KeyboardInterrupt: the ancestor has ended already.
    """
    ancestor = next((process for process in psutil.Process().parents() if process.pid == pid), None)
    if ancestor is None:
        raise KeyboardInterrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it

    def wait() -> None:
        ancestor.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()
