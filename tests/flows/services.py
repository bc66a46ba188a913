"""Real services on loopback for tests: PostgreSQL, an MLflow server, an S3 server. Each ends what it started."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
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
def mlflow_server(
    tmp: Path, backend: str, artifacts: str | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """An MLflow server over `backend` (`postgresql://...` or `sqlite:///...`) that keeps artifacts at `artifacts`, such
    as a place in a bucket whose server and credentials `variables` tell, or else under `tmp`."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend, "--artifacts-destination", artifacts or str(tmp / "mlflow-artifacts")]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp,
            env=os.environ | settings | dict(variables or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service(f"http://127.0.0.1:{port}", process)
    try:
        _wait(service, lambda: requests.get(f"{service.url}/health", timeout=2).raise_for_status(), tmp / "mlflow.log")
        yield service
    finally:
        service.stop()


CEPH_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool", "setpriv")
_CEPH_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/keyring
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
auth_allow_insecure_global_id_reclaim = false
# one disk, one copy, few placement groups: what a test needs
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 2
osd_pool_default_pgp_num = 2
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = bluestore
bluestore_block_size = 10737418240
osd_memory_target = 939524096
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{s3_port} tcp_nodelay=1
rgw_thread_pool_size = 32
# one gateway has nobody to keep its cache in step with; a killed one would be waited for, 30 s long
rgw_cache_enabled = false
"""


class Ceph:
    """Ceph's S3 server with what stands behind it, on loopback: `mon`, `osd` and `rgw`, each a process of its own that
    may be killed and started again. Data survives that; it lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mon_port, s3_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{s3_port}"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = os.environ | {"CEPH_CONF": str(folder / "ceph.conf")}
        content = _CEPH_CONF.format(fsid=uuid.uuid4(), folder=folder, mon_port=mon_port, s3_port=s3_port)
        (folder / "ceph.conf").write_text(content)
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        keys = {"mon.": "mon", "client.admin": "mon osd mgr", "osd.0": "mon osd", "client.rgw": "mon osd"}
        for index, (entity, services) in enumerate(keys.items()):
            caps = (word for service in services.split() for word in ("--cap", service, "allow *"))
            create = ("--create-keyring",) if index == 0 else ()
            self._call("ceph-authtool", *create, f"{folder}/keyring", "--gen-key", "--name", entity, *caps)
        self._fsid = re.findall("fsid = (.*)", content)[0]
        self._mon_address = f"[v2:127.0.0.1:{mon_port}]"

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a client."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "samif",
            "AWS_SECRET_ACCESS_KEY": "loopback",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def create(self) -> None:
        """Make and start everything, with one user; returns when the S3 server answers."""
        keyring, monmap = f"{self.folder}/keyring", f"{self.folder}/monmap"
        self._call("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", self._mon_address, monmap)
        self._call("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
        self.start("mon")
        osd = str(uuid.uuid4())
        self._call("ceph", "osd", "new", osd, "0")
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._call("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default")
        self.start("osd")
        user = ("--uid", "samif", "--display-name", "samif", "--access-key", "samif", "--secret-key", "loopback")
        self._call("radosgw-admin", "user", "create", *user)
        self.start("rgw")
        self.wait()

    def new_bucket(self) -> str:
        """Make an empty bucket; its name."""
        import boto3

        user = {"aws_access_key_id": "samif", "aws_secret_access_key": "loopback", "region_name": "us-east-1"}
        name = f"test-{uuid.uuid4()}"
        boto3.session.Session(**user).client("s3", endpoint_url=self.url).create_bucket(Bucket=name)
        return name

    def start(self, name: str) -> None:
        """Start `mon`, `osd` or `rgw`, which is not running."""
        command = {"mon": "ceph-mon -f -i a", "osd": "ceph-osd -f -i 0", "rgw": "radosgw -f -n client.rgw"}[name]
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command.split()],  # a killed test run leaves nothing behind
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """kill -9."""
        self.daemons[name].kill()
        self.daemons[name].wait()

    def wait(self) -> None:
        """Return when the S3 server answers."""
        service = Service(self.url, self.daemons["rgw"])
        _wait(service, lambda: requests.get(self.url, timeout=5).raise_for_status(), self.folder / "rgw.out")

    def stop(self) -> None:
        """End every process."""
        for name in ("rgw", "osd", "mon"):
            if name in self.daemons:
                Service(self.url, self.daemons[name]).stop(signal.SIGKILL if name == "rgw" else signal.SIGTERM)

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=START_SECONDS)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextmanager
def ceph() -> Iterator[Ceph]:
    """A fresh S3 server (Ceph's radosgw). Skips the test where Ceph is not installed; see infra/test-services.sh."""
    missing = [program for program in CEPH_PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no S3 server to test with: {', '.join(missing)} not installed (infra/test-services.sh does it)")
    # Not in pytest's folders: a Unix socket's path may have 107 characters.
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
