"""A Ray cluster on this machine: a head node with num_cpus=0 and workers, with token authentication."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from infra.services.daemon import Daemon, Launcher, environment_without
from infra.services.files import write_private
from samif.errors import ConfigError

ADDRESS = "127.0.0.2"
"""Of every node: a loopback address that Ray, unlike 127.0.0.1, does not replace by one of the network.

It is where nodes call each other, not where they listen: the head's control port and the raylets' take calls on all
interfaces. Ray 2.60 binds them to loopback only on a node whose address is 127.0.0.1, which no second node can join. So
token authentication protects those ports and the dashboard.
"""

HEAD = "ray-head"
_OBJECT_STORE_BYTES = 256 * 2**20
_DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class RayCluster:
    """One cluster.

    Attributes:
        folder: of the token file.
        scratch: folder of logs and sockets, whose paths are limited to 107 characters; removed at the end.
        port, dashboard_port, client_port: of the head.
        agent_ports: one per node, the head's first.
        cpus: of each worker; there is a worker for each.
        work_environment: environment variables of tasks, such as the address of the store.
    """

    folder: Path
    scratch: Path
    port: int
    dashboard_port: int
    client_port: int
    agent_ports: Sequence[int]
    cpus: Sequence[int]
    token: str
    work_environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{ADDRESS}:{self.port}"

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a client."""
        return {
            "RAY_ADDRESS": self.address,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }

    @property
    def worker_names(self) -> list[str]:
        return [f"ray-worker-{number}" for number in range(1, len(self.cpus) + 1)]

    def start(self, launcher: Launcher, name: str) -> Daemon:
        """Start the head or a worker; `wait_until_ready` waits for it. Start workers one after another: each
        numbers its sockets by those that exist."""
        words: list[str | Path] = [Path(sys.executable).with_name("ray"), "start", "--block", "--disable-usage-stats"]
        words += [f"--node-ip-address={ADDRESS}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        words += ["--min-worker-port=0", "--max-worker-port=0"]
        if name == HEAD:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(mode=0o700)
            words += ["--head", f"--port={self.port}", "--num-cpus=0", f"--temp-dir={self.scratch}"]
            words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}"]
            words += [f"--ray-client-server-port={self.client_port}"]
            place = 0
        else:
            place = self.worker_names.index(name) + 1
            words += [f"--address={self.address}", f"--num-cpus={self.cpus[place - 1]}"]
        words += [f"--dashboard-agent-listen-port={self.agent_ports[place]}"]
        return launcher.start(name, words, self._environment(), self.folder)

    def wait_until_ready(self, launcher: Launcher, daemon: Daemon) -> None:
        """Wait until the head answers, or until the cluster contains this worker."""
        nodes = 1 if daemon.name == HEAD else self.worker_names.index(daemon.name) + 2
        launcher.wait(daemon, self.dashboard, lambda: self.probe(nodes))

    def probe(self, nodes: int) -> None:
        """Raise OSError unless the dashboard accepts the token and lists at least so many nodes alive."""
        answer = requests.get(
            f"{self.dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {self.token}"}, timeout=5
        )
        answer.raise_for_status()
        found = answer.json().get("data", {}).get("result", {}).get("result", [])
        alive = sum(node.get("state") == "ALIVE" for node in found)
        if alive < nodes:
            raise OSError(f"{alive} of {nodes} nodes")

    def stop(self, daemons: Sequence[Daemon]) -> None:
        """End all nodes, and remove their logs and sockets. Running tasks have seconds to end."""
        if daemons:
            with ThreadPoolExecutor(len(daemons)) as pool:
                list(pool.map(lambda daemon: daemon.stop(seconds=_DRAIN_SECONDS), daemons))
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        path = self.folder / "token"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(path, self.token)
        if shutil.which("ray", path=str(Path(sys.executable).parent)) is None:
            raise ConfigError(f"no 'ray' beside {sys.executable}; install the pinned set again: make env")
        return {
            **environment_without("RAY_", "AWS_", "MLFLOW_"),
            **self.work_environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(path),
            # Each node would serve its metrics on all interfaces, without authentication.
            "RAY_enable_metrics_collection": "0",
            # Ray's default of 15 starves the workers on a machine with any other load.
            "RAY_worker_niceness": "0",
        }
