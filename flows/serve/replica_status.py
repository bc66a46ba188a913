"""What the replicas of one service on a machine report of themselves, in a folder that they share.

A replica holds a lock on a file of its own for as long as it lives. The kernel releases the lock when the process ends,
however it ends, and two processes never hold the same one: unlike a process id, which is given again and means another
process in another container.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4


class ReplicaStatus:
    """The status of this process, from now until it ends.

    Attributes:
        id: of this replica; no other one on any machine has it.
    """

    def __init__(self, state: Path) -> None:
        self.id, self._started = uuid4().hex, time.time()
        self._folder = _folder(state)
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"{self.id}.new"
        self._lock = new.open("w")  # kept open: closing it would release the lock
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        new.rename(_lock_of(state, self.id))  # only now can others see it: locked

    def publish(self, content: dict[str, Any]) -> None:
        """Replace what this replica reports, as a whole."""
        part = self._folder / f"{self.id}.part"  # not made durable: after a crash of the machine it means nothing
        own = {"id": self.id, "pid": os.getpid(), "started": self._started}
        part.write_text(json.dumps(own | content), encoding="utf-8")
        part.replace(self._folder / f"{self.id}.json")


def read_replicas(state: Path) -> list[dict[str, Any]]:
    """What the running replicas report, in the order in which they started; files of ended ones are removed."""
    found = []
    for lock in _folder(state).glob("*.lock"):
        report = lock.with_suffix(".json")
        if not is_running(state, lock.stem):
            report.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        elif report.exists():
            found.append(json.loads(report.read_bytes()))
    return sorted(found, key=lambda content: (content["started"], content["id"]))


def is_running(state: Path, replica: str) -> bool:
    """Whether the process of a replica still runs."""
    try:
        with _lock_of(state, replica).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two readers do not deceive each other
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _folder(state: Path) -> Path:
    return state / "replicas"


def _lock_of(state: Path, replica: str) -> Path:
    return _folder(state) / f"{replica}.lock"
