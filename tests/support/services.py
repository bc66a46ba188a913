"""Real services on loopback for tests, started as `make services` starts them. Each ends what it started."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from infra.services import ceph as s3
from infra.services.daemon import Daemon, Launcher
from infra.services.mlflow import MlflowServer
from infra.services.postgres import Postgres, server_programs
from samif.errors import SamifError


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """End a command that leads a session, as Ctrl-C does; kill it and what it has left if that takes too long."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Service:
    """A running service: its address, and its process."""

    url: str
    daemon: Daemon

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.daemon.process is not None
        return self.daemon.process

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Signal the leader, wait for it, and kill whatever it has left."""
        self.daemon.stop(how)


def free_port() -> int:
    """A loopback TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ten_free_ports() -> int:
    """The first of ten that nobody listens on, outside the range that the kernel hands out; not the same one to each of
    several who ask at once."""
    taken = {item.laddr.port for item in psutil.net_connections("tcp") if item.status == psutil.CONN_LISTEN}
    bases = [base for base in range(21000, 30000, 10) if not taken & set(range(base, base + 10))]
    return random.choice(bases)


class CommandLines:
    """Every command line that any process of this machine has had meanwhile, as far as a look every few milliseconds
    shows."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> CommandLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            for name in filter(str.isdigit, os.listdir("/proc")):  # all of them: a process may change its command line
                try:
                    self.seen.add(Path(f"/proc/{name}/cmdline").read_bytes())
                except OSError:
                    continue


@contextmanager
def at_work(server: ThreadingHTTPServer) -> Iterator[None]:
    """Inside, an HTTP server of this process answers, in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def postgres(tmp: Path) -> Iterator[Service]:
    """A fresh PostgreSQL with an empty database; its log goes to `tmp`. Skips the test where it is not installed."""
    skip_without_postgres()
    # Another user than root runs the server, and cannot enter pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="samif-pg-"))
    folder.chmod(0o755)
    try:
        server = Postgres(folder / "pg", free_port(), secrets.token_hex(8), secrets.token_hex(8), durable=False)
        launcher = _launcher(tmp)
        server.create()
        daemon = server.start(launcher)
        try:
            server.wait_until_ready(launcher, daemon)
            yield Service(server.url(), daemon)
        finally:
            server.stop(daemon)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(
    tmp: Path, backend: str, artifacts: str | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """An MLflow server over `backend` (`postgresql://...` or `sqlite:///...`) that keeps artifacts at `artifacts`, such
    as a place in a bucket whose server and credentials `variables` tell, or else under `tmp`. Asks for no password."""
    server = MlflowServer(tmp, free_port(), backend, artifacts or str(tmp / "mlflow-artifacts"), variables or {})
    launcher = _launcher(tmp)
    daemon = server.start(launcher)
    try:
        server.wait_until_ready(launcher, daemon)
        yield Service(server.url, daemon)
    finally:
        server.stop(daemon)


class Ceph:
    """Ceph's S3 server with what stands behind it: `mon`, `osd` and `rgw`, each a process of its own that may be killed
    and started again. Data survives that; it lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = s3.Ceph(folder / "ceph", free_port(), free_port())
        self._launcher = Launcher(uuid.uuid4().hex, folder, die_with_starter=True, started=self._remember)
        self.url = self._server.url
        self.daemons: dict[str, Daemon] = {}

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a client."""
        return self._server.variables

    def create(self) -> None:
        """Make and start everything, with one user; returns when the S3 server answers."""
        self._server.create(self._launcher)

    def new_bucket(self) -> str:
        """Make an empty bucket; its name."""
        name = f"test-{uuid.uuid4()}"
        self._server.client().create_bucket(Bucket=name)
        return name

    def start(self, name: str) -> None:
        """Start `mon`, `osd` or `rgw`, which is not running."""
        self._server.start(self._launcher, name)

    def kill(self, name: str) -> None:
        """kill -9."""
        self.daemons[name].stop(signal.SIGKILL)

    def wait(self) -> None:
        """Return when the S3 server answers."""
        self._server.wait_until_ready(self._launcher, self.daemons["rgw"])

    def _remember(self, daemon: Daemon) -> None:
        self.daemons[daemon.name.removeprefix("ceph-")] = daemon

    def stop(self) -> None:
        """End every process."""
        self._server.stop(list(self.daemons.values()))


@contextmanager
def ceph() -> Iterator[Ceph]:
    """A fresh S3 server (Ceph's radosgw). Skips the test where Ceph is not installed; see infra/test-services.sh."""
    skip_without_ceph()
    folder = Path(tempfile.mkdtemp(prefix="samif-ceph-"))
    try:
        server = Ceph(folder)
        try:
            server.create()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def skip_without_ceph() -> None:
    missing = s3.missing_programs()
    if missing:
        pytest.skip(f"no S3 server to test with: {', '.join(missing)} not installed (infra/test-services.sh does it)")


def skip_without_postgres() -> None:
    try:
        server_programs()
    except SamifError as error:
        pytest.skip(str(error))


def _launcher(logs: Path) -> Launcher:
    """Of daemons that a killed test run does not leave behind."""
    return Launcher(uuid.uuid4().hex, logs, die_with_starter=True)
