"""A cluster of three hosts, one of which is disconnected during an embedding run: network namespaces as hosts.

Needs root and Debian's `iproute2`. The hosts share a file system, and so the store and the images, and nothing else; a
switch connects them, of which one port is taken down. SAMIF_RECORD=1 also writes the table to benchmarks/PARTITION.md.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from flows.embedding.encoder import load_encoder
from flows.store import open_store
from samif.config import EncoderParams
from tests.support.embedding_job import Job, draw_noise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]

TABLE = Path(__file__).parents[2] / "benchmarks" / "PARTITION.md"
COMMAND = "SAMIF_RECORD=1 python -m pytest -m slow tests/slow/test_partition.py"
IMAGES, SHARD, HOSTS, SEED = 500, 20, 3, 0
CUT_AFTER = 4.0
RUN_SECONDS, START_SECONDS = 1800.0, 600.0
"""No measurements, and so long that other work on the machine does not matter."""
PORT = 6379
SETTINGS = {
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""As infra/kubernetes/raycluster.yaml sets them, on every node. Nodes without them reject a driver that has them ("too
many pings"), so samif does not set them itself."""


@dataclass(frozen=True)
class Case:
    """For how long a worker's host is disconnected (None: for good), and whether nodes and driver have SETTINGS."""

    name: str
    seconds: float | None
    settings: bool = True


CASES = (
    Case("10 s", 10.0),
    Case("permanently", None),
    Case("permanently, Ray's default settings", None, settings=False),
)


@dataclass(frozen=True)
class Ran:
    """A completed run: seconds from the first batch on, digest of its manifest, images encoded, damaged shards."""

    seconds: float
    digest: str
    encoded: int
    damages: int


class Network:
    """A switch and hosts, each a network namespace; host 0 is the head node."""

    def __init__(self) -> None:
        self._stamp = f"samif{os.getpid()}"

    @property
    def switch(self) -> str:
        return f"{self._stamp}-switch"

    def host(self, number: int) -> str:
        return f"{self._stamp}-{number}"

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.0.{number + 1}"

    def make(self) -> None:
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "bridge", "up")
        for number in range(HOSTS):
            host, port = self.host(number), f"port{number}"
            _ip("netns", "add", host)
            _ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", self.switch, "link", "set", port, "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host, "link", "set", device, "up")

    def remove(self) -> None:
        for name in (*map(self.host, range(HOSTS)), self.switch):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)

    def set_port(self, number: int, state: str) -> None:
        """Disconnect a host (`down`) or connect it again (`up`)."""
        _ip("-n", self.switch, "link", "set", f"port{number}", state)

    def on(self, number: int) -> list[str]:
        """The words before a command that runs on this host."""
        return ["ip", "netns", "exec", self.host(number)]


@contextmanager
def network() -> Iterator[Network]:
    """A network of three hosts."""
    made = Network()
    try:
        made.make()
        yield made
    finally:
        made.remove()


@contextmanager
def cluster(net: Network, environment: Mapping[str, str]) -> Iterator[None]:
    """Inside, each host is a Ray node with one CPU."""
    scratch = Path(tempfile.mkdtemp(prefix="samif-ray-", dir="/tmp"))  # a socket's path may have 107 characters
    ray = str(Path(sys.executable).with_name("ray"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        for number in range(HOSTS):
            words = [ray, "start", "--block", "--disable-usage-stats", "--num-cpus=1"]
            words += ["--object-store-memory=100000000", f"--node-ip-address={net.address(number)}"]
            if number == 0:
                words += ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={scratch}"]
            else:
                words += [f"--address={net.address(0)}:{PORT}"]

            def start(
                command: Sequence[str] = (*net.on(number), *words), log: Path = scratch / f"{number}.log"
            ) -> psutil.Popen:
                with log.open("ab") as file:
                    node = psutil.Popen(
                        command, env=dict(environment), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                    )
                stack.callback(_kill, node)
                return node

            _wait_for_nodes(net, environment, number + 1, start)
        yield


def _wait_for_nodes(
    net: Network, environment: Mapping[str, str], count: int, start: Callable[[], psutil.Popen]
) -> None:
    """Start the last one of `count` nodes, again if it ends: Ray gives it 30 s, too short on a machine with other
    work."""
    code = f"import ray; ray.init('{net.address(0)}:{PORT}', log_to_driver=False, logging_level='ERROR');"
    code += f"raise SystemExit(sum(node['Alive'] for node in ray.nodes()) < {count})"
    deadline = time.monotonic() + START_SECONDS
    command = [*net.on(0), sys.executable, "-c", code]
    node = start()
    while subprocess.run(command, env=dict(environment), capture_output=True).returncode:
        assert time.monotonic() < deadline, f"no cluster of {count} nodes"
        if node.poll() is not None:
            node = start()
        time.sleep(1.0)


def _kill(node: psutil.Popen) -> None:
    with suppress(psutil.NoSuchProcess):
        for process in (*node.children(recursive=True), node):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    node.wait(30)


def run(folder: Path, name: str, settings: bool, disturb: Callable[[Network], None]) -> Ran:
    """One embedding run on a fresh cluster, disturbed CUT_AFTER seconds after its first batch."""
    log = folder / name
    log.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(24), "RAY_worker_niceness": "0"}
    environment |= SETTINGS if settings else {}
    with network() as net, cluster(net, environment):
        job = Job(
            images=str(folder / "images.json"),
            store=str(folder / f"{name}.store"),
            log=str(log),
            result=str(folder / f"{name}.digest"),
            workers=HOSTS,
            shard_images=SHARD,
            address=f"{net.address(0)}:{PORT}",
        )
        output = folder / f"{name}.log"
        with output.open("wb") as file:
            driver = subprocess.Popen([*net.on(0), *job.command()], env=environment, stdout=file, stderr=file)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _encoded(log):
                assert driver.poll() is None and time.monotonic() < deadline, output.read_text()
                time.sleep(0.02)
            started = time.monotonic()
            time.sleep(CUT_AFTER)
            assert driver.poll() is None, "the run ended before the partition"
            disturb(net)
            code = driver.wait(RUN_SECONDS)
            seconds = time.monotonic() - started
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        assert code == 0, output.read_text()
    encoder = load_encoder(EncoderParams(), "cpu")
    namespace = open_store(job.store, Path()).namespace(encoder.digest, encoder.preprocessing_digest)
    return Ran(seconds, Path(job.result).read_text(), _encoded(log), len(namespace.verify()))


def _encoded(log: Path) -> int:
    return sum(file.stat().st_size for file in log.iterdir())


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Ran, list[str]]]:
    """Folder, undisturbed run and rows of the table."""
    folder = tmp_path_factory.mktemp("partition")
    draw_noise(folder, IMAGES, SEED)
    calm = run(folder, "calm", True, lambda _: None)
    rows = [f"| never | {calm.seconds:.1f} s | | | {calm.encoded - IMAGES} | {calm.damages} |"]
    yield folder, calm, rows
    if os.environ.get("SAMIF_RECORD") and len(rows) == len(CASES) + 1:
        TABLE.write_text(_page(rows), encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_survives_the_loss_of_a_host(undisturbed: tuple[Path, Ran, list[str]], case: Case) -> None:
    folder, calm, rows = undisturbed

    def disturb(net: Network) -> None:
        net.set_port(HOSTS - 1, "down")
        if case.seconds is not None:
            time.sleep(case.seconds)
            net.set_port(HOSTS - 1, "up")

    ran = run(folder, str(CASES.index(case)), case.settings, disturb)
    same = ran.digest == calm.digest and ran.damages == 0
    rows.append(
        f"| {case.name} | {ran.seconds:.1f} s | {ran.seconds - calm.seconds:.1f} s "
        f"| {'same' if same else '**differs**'} | {ran.encoded - IMAGES} | {ran.damages} |"
    )
    assert same


def _page(rows: list[str]) -> str:
    settings = "\n".join(f"    {key}={value}" for key, value in SETTINGS.items())
    head = f"""# Network partition

{IMAGES} images, encoder `tiny`, shards of {SHARD}; three hosts (network namespaces behind a switch) with a Ray node of one CPU
each, on one machine of {os.cpu_count()} cores. {CUT_AFTER:.0f} s after the first batch, a host other than the head node is disconnected; the driver
runs on the head node's host. *Lost*: additional time against the undisturbed run, from one run each. *Manifest*: digest
compared with the undisturbed run, every image in the store. The hosts share the disk of the store, so a disconnected
host can still finish the shards that it was processing.

    {COMMAND}

Nodes and driver use these settings, unless the table says otherwise:

{settings}

A driver must not use them if the nodes do not: the nodes reject it ("too many pings"). The embedding run works with and
without them: shards of a host that does not respond are given to others.
"""  # noqa: E501
    columns = "| disconnected | run time | lost | manifest | encoded twice | damage |\n|---|---|---|---|---|---|"
    return "\n".join([head, columns, *rows]) + "\n"
