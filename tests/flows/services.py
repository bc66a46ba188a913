"""Real services on loopback for tests: PostgreSQL and an MLflow server. Each ends what it started."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests

POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
START_SECONDS = 120.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Service:
    """A running service: its address, and its process (leader of a process group of its own)."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Signal the leader, wait for it, and kill whatever is left of its group."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A loopback TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(tmp: Path) -> Iterator[Service]:
    """A fresh PostgreSQL with an empty database; its log goes to `tmp`. Skips the test where it is not installed."""
    if not (POSTGRES_BIN / "initdb").exists():
        pytest.skip(f"PostgreSQL 15 is not installed under {POSTGRES_BIN}")
    # The server refuses to run as root, and another user cannot enter pytest's folders.
    user = _unprivileged() if os.geteuid() == 0 else None
    data = Path(tempfile.mkdtemp(prefix="samif-pg-"))
    try:
        if user:
            shutil.chown(data, user)
        port = free_port()
        initdb = [str(POSTGRES_BIN / "initdb"), "--pgdata", f"{data}/db", "--username", "samif", "--auth", "trust"]
        subprocess.run(
            [*initdb, "--no-sync", "--encoding", "UTF8"], user=user, cwd=data, check=True, capture_output=True
        )
        settings = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={data}", "fsync=off")
        command = [
            str(POSTGRES_BIN / "postgres"),
            "-D",
            f"{data}/db",
            *(word for item in settings for word in ("-c", item)),
        ]
        with (tmp / "postgres.log").open("wb") as log:
            process = subprocess.Popen(
                command, user=user, cwd=data, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        service = Service(f"postgresql://samif@127.0.0.1:{port}/postgres", process)
        try:
            _wait(service, lambda: psycopg.connect(service.url, connect_timeout=2).close(), tmp / "postgres.log")
            yield service
        finally:
            service.stop(signal.SIGINT)  # fast shutdown
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def mlflow_server(tmp: Path, backend: str) -> Iterator[Service]:
    """An MLflow server over `backend` (`postgresql://...` or `sqlite:///...`) that keeps artifacts under `tmp`."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend, "--artifacts-destination", str(tmp / "mlflow-artifacts")]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    service = Service(f"http://127.0.0.1:{port}", process)
    try:
        _wait(service, lambda: requests.get(f"{service.url}/health", timeout=2).raise_for_status(), tmp / "mlflow.log")
        yield service
    finally:
        service.stop()


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait(service: Service, probe: Callable[[], None], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            probe()
            return
        except (OSError, psycopg.Error) as error:
            if service.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{service.url} did not start: {error}\n{log.read_text()}") from error
        time.sleep(0.2)
