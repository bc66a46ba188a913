"""A real Ray head on loopback with a token, and a samif of one file that stands in for the real one on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from flows.submit.wheel import write_wheel
from tests.support.services import free_port

START_SECONDS = 90.0

DRIVER = b"""
import json, os, pathlib, sys, time
submission = json.load(open("submission.json"))
here = pathlib.Path(submission["here"])
with (here / "started").open("a") as file:
    print(submission["id"], file=file)
print("begun", sorted(p.name for p in pathlib.Path("workspace").rglob("*") if p.is_file()), flush=True)
while not (here / "go").exists():
    time.sleep(0.05)
if (here / "bad").exists():
    print("samif: the gear is blurred; take it again", flush=True)
    sys.exit(1)
print("ended", flush=True)
"""
"""Waits for a file `go` in the workspace; fails where there is a file `bad`."""


@dataclass(frozen=True)
class RayHead:
    """A head that runs: the address of its dashboard, its token, and the folder of its logs."""

    address: str
    token: str
    folder: Path
    process: psutil.Popen

    def kill(self) -> None:
        """kill -9 of the head and of everything that it started."""
        with suppress(psutil.NoSuchProcess):
            for process in (*self.process.children(recursive=True), self.process):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def ray_head() -> Iterator[RayHead]:
    """A fresh head whose token no other cluster has."""
    folder = Path(tempfile.mkdtemp(prefix="samif-ray-", dir="/tmp"))  # a socket's path may have 107 characters
    token, port = os.urandom(24).hex(), free_port()
    beside = Path(sys.executable).parent
    words = ["start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2", f"--temp-dir={folder}/ray"]
    words += ["--node-ip-address=127.0.0.1", f"--port={free_port()}", f"--ray-client-server-port={free_port()}"]
    words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--object-store-memory=100000000"]
    words += [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_worker_niceness": "0",
        "PATH": os.pathsep.join([str(beside), environment.get("PATH", os.defpath)]),
    }
    with (folder / "head.log").open("wb") as log:
        process = psutil.Popen(
            [str(beside / "ray"), *words], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    head = RayHead(f"http://127.0.0.1:{port}", token, folder, process)
    try:
        _wait(head)
        yield head
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def stand_in(folder: Path) -> Path:
    """A wheel of the driver above, which needs nothing and starts at once."""
    return write_wheel(
        folder, {"flows/__init__.py": b"", "flows/submit/__init__.py": b"", "flows/submit/driver.py": DRIVER}
    )


def _wait(head: RayHead) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            headers = {"Authorization": f"Bearer {head.token}"}
            requests.get(f"{head.address}/api/jobs/", headers=headers, timeout=5).raise_for_status()
            return
        except OSError as error:
            if not head.process.is_running() or time.monotonic() > deadline:
                raise AssertionError(f"no head: {error}\n{(head.folder / 'head.log').read_text()}") from error
        time.sleep(0.3)
