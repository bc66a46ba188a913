"""A cluster of three hosts, one of which is cut off in the middle of an embedding run: network namespaces as hosts.

python -m benchmarks.partition

Needs root and Debian's `iproute2`. Prints a table and writes PARTITION.md. The hosts share a file system, and so the
store and the images, and nothing else; a switch joins them, of which one port is pulled.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks.faulty_run import Job, draw_noise
from flows.embedding.encoder import load_encoder
from flows.store import open_store
from samif.config import EncoderParams

NOTE = Path(__file__).parent / "PARTITION.md"
IMAGES, SHARD, HOSTS, SEED = 500, 20, 3, 0
CUT_AFTER, RUN_SECONDS, START_SECONDS = 4.0, 400.0, 120.0
PORT = 6379
PARTITION = {
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""As infra/kubernetes/raycluster.yaml sets them, on every node; a driver that alone has them is turned away by the
nodes ("too many pings"), so samif never sets them itself."""


@dataclass(frozen=True)
class Case:
    """For how long a worker's host is cut off (None: for good), and whether nodes and driver have our settings."""

    name: str
    seconds: float | None
    settings: bool = True


CASES = (
    Case("10 s", 10.0),
    Case("for good", None),
    Case("for good, Ray's own settings", None, settings=False),
)


@dataclass(frozen=True)
class Ran:
    """A run that ended well: seconds from the first batch on, digest of its manifest, batches begun, damage left."""

    seconds: float
    digest: str
    encoded: int
    damages: int


class Network:
    """A switch and hosts, each a network namespace; host 0 is the head."""

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

    def plug(self, number: int, state: str) -> None:
        """Pull a host's cable (`down`), or put it back (`up`)."""
        _ip("-n", self.switch, "link", "set", f"port{number}", state)

    def on(self, number: int) -> list[str]:
        """What to put before a command so that it runs on this host."""
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
            words = [
                ray,
                "start",
                "--block",
                "--disable-usage-stats",
                "--num-cpus=1",
                "--object-store-memory=100000000",
            ]
            words += [f"--node-ip-address={net.address(number)}"]
            if number == 0:
                words += ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={scratch}"]
            else:
                words += [f"--address={net.address(0)}:{PORT}"]
            with (scratch / f"{number}.log").open("wb") as log:
                node = psutil.Popen(
                    [*net.on(number), *words], env=dict(environment), stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            stack.callback(_kill, node)
            _wait_for_nodes(net, environment, number + 1)
        yield


def _wait_for_nodes(net: Network, environment: Mapping[str, str], count: int) -> None:
    code = f"import ray; ray.init('{net.address(0)}:{PORT}', log_to_driver=False, logging_level='ERROR');"
    code += f"raise SystemExit(sum(node['Alive'] for node in ray.nodes()) < {count})"
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(
        [*net.on(0), sys.executable, "-c", code], env=dict(environment), capture_output=True
    ).returncode:
        assert time.monotonic() < deadline, f"no cluster of {count} nodes"
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
    environment |= PARTITION if settings else {}
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
        with (folder / f"{name}.said").open("wb") as said:
            driver = subprocess.Popen([*net.on(0), *job.command()], env=environment, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _encoded(log):
                assert driver.poll() is None and time.monotonic() < deadline, (folder / f"{name}.said").read_text()
                time.sleep(0.02)
            started = time.monotonic()
            time.sleep(CUT_AFTER)
            assert driver.poll() is None, "the run was over before it could be disturbed"
            disturb(net)
            code = driver.wait(RUN_SECONDS)
            seconds = time.monotonic() - started
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
        assert code == 0, (folder / f"{name}.said").read_text()
    encoder = load_encoder(EncoderParams(), "cpu")
    namespace = open_store(job.store, Path()).namespace(encoder.digest, encoder.preprocessing_digest)
    return Ran(seconds, Path(job.result).read_text(), _encoded(log), len(namespace.verify()))


def _encoded(log: Path) -> int:
    return sum(file.stat().st_size for file in log.iterdir())


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def main() -> None:
    """Run all cases, print and record them; exit code 1 if one of them came to something else."""
    out = Console()
    rows = ["| cut off | the run took | lost | manifest | encoded twice | damage left |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory(prefix="samif-partition-") as name:
        folder, kept = Path(name), 0
        draw_noise(folder, IMAGES, SEED)
        calm = run(folder, "calm", True, lambda _: None)
        rows.append(f"| never | {calm.seconds:.1f} s | | | {calm.encoded - IMAGES} | {calm.damages} |")
        for number, case in enumerate(CASES):

            def disturb(net: Network, seconds: float | None = case.seconds) -> None:
                net.plug(HOSTS - 1, "down")
                if seconds is not None:
                    time.sleep(seconds)
                    net.plug(HOSTS - 1, "up")

            ran = run(folder, str(number), case.settings, disturb)
            same = ran.digest == calm.digest and ran.damages == 0
            kept += same
            rows.append(
                f"| {case.name} | {ran.seconds:.1f} s | {ran.seconds - calm.seconds:.1f} s "
                f"| {'same' if same else '**other**'} | {ran.encoded - IMAGES} | {ran.damages} |"
            )
            out.print(rows[-1], soft_wrap=True, highlight=False)
    settings = "\n".join(f"    {key}={value}" for key, value in PARTITION.items())
    head = f"""# Partition

`python -m benchmarks.partition`: {IMAGES} images, encoder `tiny`, shards of {SHARD}; three hosts (network
namespaces behind a switch) with a Ray node of one CPU each, on one machine of {os.cpu_count()} cores. {CUT_AFTER:.0f} s
after the first batch the cable of a host is pulled that is not the head; the driver runs on the head's host. *Lost*:
longer than undisturbed, from one run each. *Manifest*: against the digest of the
undisturbed run, every image in the store. The hosts share the disk that the store lies on, so a host that is cut off
can still finish the shards that it has in hand.

Nodes and driver have, unless the table says otherwise:

{settings}

A driver must not have them where the nodes do not: those turn it away ("too many pings"). The embedding run does not
stand or fall with them: what a silent host had in hand goes to others anyway.

"""
    NOTE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    raise SystemExit(0 if kept == len(CASES) else 1)


if __name__ == "__main__":
    main()
