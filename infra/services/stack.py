"""The whole stack of one machine: starts its services, waits for each, ends them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from flows.runtime.locks import held
from infra.services.ceph import DAEMONS as CEPH
from infra.services.ceph import Ceph, require_installed
from infra.services.daemon import Daemon, Launcher, kill_tagged
from infra.services.files import export_lines, write_private
from infra.services.mlflow import ADMINISTRATOR as MLFLOW_ADMINISTRATOR
from infra.services.mlflow import Auth, MlflowServer
from infra.services.ports import check_ports
from infra.services.postgres import Postgres, server_programs
from infra.services.ray import HEAD, RayCluster
from infra.services.state import FIRST_PORT, State, load_state, new_state, save_state
from samif.errors import ConfigError, ServiceUnavailable

BUCKET = "samif"
SECRET = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "PGPASSWORD")
"""Variables that are written to the environment file and never shown."""

_NEEDS = {
    "postgres": ("postgres",),
    "ceph-mon": ("ceph-mon",),
    "ceph-osd": (),
    "ceph-rgw": ("s3",),
    "mlflow": ("mlflow",),
    HEAD: ("ray", "ray-dashboard", "ray-client", "ray-head-agent"),
    "ray-worker-1": ("ray-worker-1-agent",),
    "ray-worker-2": ("ray-worker-2-agent",),
}
"""Daemon -> its configurable ports."""

Say = Callable[[str], None]


class Stack:
    """PostgreSQL, Ceph's S3 server, MLflow and Ray of one folder.

    Args:
        folder: holds data, logs, state and `environment`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.environment = self.folder / "environment"
        self.state_file = self.folder / "state.json"
        self._guard = threading.Lock()
        self._started: list[Daemon] = []

    def up(self, first_port: int | None, say: Say = lambda _: None) -> dict[str, str]:
        """Start what does not run yet, wait until everything answers, write the environment file.

        Args:
            first_port: of ten; only for a stack that has no data yet.
            say: called with one line per service.

        Returns:
            The environment of a client. Without data at the start, there is an empty bucket at the end.

        Raises:
            ConfigError: something is not installed, or a port is in use.
            ServiceUnavailable: a service does not start. Everything that this call had started is ended then.
        """
        with self.exclusive():
            self._started.clear()
            self.state = self._begin(first_port)
            if self.state.pending is not None:
                raise ConfigError("a rotation of passwords was interrupted; complete it with 'make services-rotate'")
            alive = self._alive()
            for name in {*_NEEDS} - {*alive}:
                kill_tagged(f"{self.state.stack}/{name}")  # processes that a killed one has left
            server_programs()
            require_installed()
            wanted = {port for daemon, ports in _NEEDS.items() if daemon not in alive for port in ports}
            check_ports(
                self.state,
                wanted,
                "end that process, or start a new stack on other ports: make services SERVICES_PORT=21400",
            )
            try:
                self._start_all(alive, say)
            except BaseException:
                # Twice: a thread may have started another daemon during the first pass.
                self._end(self._started)
                self._end(self._started)
                raise
            variables = self._client_variables()
            write_private(self.environment, export_lines(variables))
            return variables

    def down(self, say: Say = lambda _: None, remove_data: bool = False) -> None:
        """End the processes that `up` has started; data stays unless `remove_data`.

        Raises:
            ServiceUnavailable: another command uses the stack, or a process does not end.
        """
        if not self.folder.is_dir():
            say(f"nothing runs: there is no {self.folder}")
            return
        with self.exclusive():
            state = load_state(self.state_file)
            if state is not None:
                self.state = state
                alive = self._alive()
                self._end(list(alive.values()))
                kill_tagged(state.stack)
                save_state(self.state_file, state.model_copy(update={"daemons": {}}))
                say(f"ended {', '.join(sorted(alive))}" if alive else "nothing was running")
            if remove_data:
                for name in ("postgres", "ceph", "mlflow", "ray", "logs"):
                    if (self.folder / name).exists():
                        shutil.rmtree(self.folder / name)
                for path in (self.environment, self.state_file):
                    path.unlink(missing_ok=True)
                say(f"removed the data in {self.folder}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lock the stack, all services of which must be running.

        Raises:
            ServiceUnavailable: one of them is not.
        """
        with self.exclusive():
            state = load_state(self.state_file)
            if state is not None:
                self.state = state
            if state is None or self._alive().keys() != _NEEDS.keys():
                raise ServiceUnavailable(f"not all services of {self.folder} run; start them with 'make services'")
            yield

    def stop_dependents(self) -> None:
        """End MLflow and Ray, inside `running`; PostgreSQL and S3 keep running."""
        alive = self._alive()
        self._end([daemon for name, daemon in alive.items() if name == "mlflow" or name.startswith("ray-")])

    # parts

    @property
    def postgres(self) -> Postgres:
        secrets = self.state.secrets
        return Postgres(
            self.folder / "postgres",
            self.state.port("postgres"),
            secrets.postgres_administrator,
            secrets.postgres_role,
        )

    @property
    def ceph(self) -> Ceph:
        return Ceph(self.folder / "ceph", self.state.port("ceph-mon"), self.state.port("s3"), gibibytes=100)

    @property
    def mlflow(self) -> MlflowServer:
        secrets = self.state.secrets
        return MlflowServer(
            self.folder / "mlflow",
            self.state.port("mlflow"),
            backend=self.postgres.url("mlflow"),
            artifacts=f"s3://{BUCKET}/mlflow",
            variables=self.ceph.credential_file_variables,
            auth=Auth(self.postgres.url("mlflow_auth"), secrets.mlflow_administrator, secrets.mlflow_signing_key),
        )

    @property
    def ray(self) -> RayCluster:
        cores = len(os.sched_getaffinity(0))
        return RayCluster(
            self.folder / "ray",
            Path("/tmp") / f"samif-ray-{self.state.stack[:12]}",
            self.state.port("ray"),
            self.state.port("ray-dashboard"),
            self.state.port("ray-client"),
            [self.state.port(f"{name}-agent") for name in (HEAD, "ray-worker-1", "ray-worker-2")],
            [max(1, cores - cores // 2), max(1, cores // 2)],
            self.state.secrets.ray_token,
            {**self.ceph.credential_file_variables, **self._mlflow_variables},
        )

    # starting

    def _begin(self, first_port: int | None) -> State:
        state = load_state(self.state_file)
        if state is None:
            state = new_state(first_port or FIRST_PORT)
            save_state(self.state_file, state)
        elif first_port not in (None, state.first_port):
            if not (self.folder / "ceph").exists() and not state.daemons:
                return state.model_copy(update={"first_port": first_port})
            raise ConfigError(
                f"the stack in {self.folder} has ports from {state.first_port} on, and its data names them; "
                "leave SERVICES_PORT out, or remove the data first: make services-down SERVICES_DATA=remove"
            )
        return state

    def _start_all(self, alive: dict[str, Daemon], say: Say) -> None:
        (self.folder / "logs").mkdir(mode=0o700, exist_ok=True)
        launcher = Launcher(self.state.stack, self.folder / "logs", started=self._remember)

        def report(name: str, where: str, fresh: bool) -> None:
            say(f"{name:<12}{where:<28}{'answers' if fresh else 'answers, was running'}")

        def postgres() -> None:
            part = self.postgres
            if not part.is_created:
                part.create()
            part.wait_until_ready(launcher, alive.get("postgres") or part.start(launcher))
            report("PostgreSQL", f"127.0.0.1:{part.port}", "postgres" not in alive)

        def ceph() -> None:
            part = self.ceph
            if not part.is_created:
                self._end([alive.pop(name) for name in list(alive) if name.startswith("ceph-")])
                part.create(launcher)
            names = [f"ceph-{name}" for name in CEPH]
            fresh = not alive.keys() >= set(names)
            running = alive | {daemon.name: daemon for daemon in self._started}
            daemons = [running.get(name) or part.start(launcher, name.removeprefix("ceph-")) for name in names]
            part.wait_until_ready(launcher, daemons[-1])
            part.client().create_bucket(Bucket=BUCKET)  # no error where it exists
            report("S3", part.url, fresh)

        def mlflow() -> None:
            part = self.mlflow
            part.wait_until_ready(launcher, alive.get("mlflow") or part.start(launcher))
            report("MLflow", part.url, "mlflow" not in alive)

        def ray() -> None:
            part = self.ray
            names = [HEAD, *part.worker_names]
            if HEAD not in alive:  # its workers end with it
                self._end([alive.pop(name) for name in names if name in alive])
            fresh = not alive.keys() >= set(names)
            for name in names:
                part.wait_until_ready(launcher, alive.get(name) or part.start(launcher, name))
            report("Ray", part.address, fresh)

        with ThreadPoolExecutor(3) as pool:
            stores = [pool.submit(postgres), pool.submit(ceph)]
            cluster = pool.submit(ray)
            try:
                self._all(stores)
                self._all([pool.submit(mlflow), cluster])
            except BaseException:
                self._end(self._started)  # threads that wait for a daemon notice that it has ended, and stop
                raise

    @staticmethod
    def _all(jobs: Sequence[Future[None]]) -> None:
        done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        for job in done:
            job.result()

    def _remember(self, daemon: Daemon) -> None:
        with self._guard:
            self._started.append(daemon)
            daemons = {**self.state.daemons, daemon.name: daemon.identity}
            self.state = self.state.model_copy(update={"daemons": daemons})
            save_state(self.state_file, self.state)

    def _alive(self) -> dict[str, Daemon]:
        known = {name: Daemon(name, f"{self.state.stack}/{name}", who) for name, who in self.state.daemons.items()}
        return {name: daemon for name, daemon in known.items() if daemon.runs}

    def _end(self, daemons: Sequence[Daemon]) -> None:
        """End daemons, dependents first."""
        named = {daemon.name: daemon for daemon in daemons}
        if "mlflow" in named:
            MlflowServer.stop(named["mlflow"])
        nodes = [daemon for name, daemon in named.items() if name.startswith("ray-")]
        if nodes:
            self.ray.stop(nodes)
        if "postgres" in named:
            Postgres.stop(named["postgres"])
        Ceph.stop([daemon for name, daemon in named.items() if name.startswith("ceph-")])

    @property
    def _mlflow_variables(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "MLFLOW_TRACKING_USERNAME": MLFLOW_ADMINISTRATOR,
            "MLFLOW_TRACKING_PASSWORD": self.state.secrets.mlflow_administrator,
        }

    def _client_variables(self) -> dict[str, str]:
        return {
            **self.ceph.variables,
            **self._mlflow_variables,
            **self.ray.variables,
            **self.postgres.administrator_variables,
        }

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the stack for one command.

        Raises:
            ServiceUnavailable: another command uses it.
        """
        busy = ServiceUnavailable(f"another command uses the services in {self.folder}; wait until it has ended")
        with held(self.folder / "lock", busy):
            yield
