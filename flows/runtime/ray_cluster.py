"""A Ray cluster for one stage: a private one on this machine, or a running one."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from flows.runtime.ray_start import start_cluster
from samif import errors
from samif.errors import SamifError, ServiceUnavailable

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Cluster:
    """Resources of each worker.

    Attributes:
        workers: number that fits at once, at most the number asked for.
        cpus_per_worker: CPUs to reserve for a worker; Ray sets OMP_NUM_THREADS to it.
        gpus_per_worker: 1 if the cluster has GPUs, otherwise 0.
    """

    workers: int
    cpus_per_worker: int
    gpus_per_worker: int


def set_ray_environment(address: str | None) -> None:
    """Set environment variables for Ray, which reads them once: call this before ray is first imported."""
    if not os.environ.get("RAY_ADDRESS", "").strip():
        os.environ.pop("RAY_ADDRESS", None)  # Ray takes an empty one for an address
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # A private cluster listens on all interfaces and runs any code that it is sent, so it needs a token; one in the
        # environment needs no file in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # With Ray's default of 15 the workers starve on a machine that has other work.
        os.environ.setdefault("RAY_worker_niceness", "0")


@contextmanager
def ray_cluster(address: str | None, workers: int, job: str = "samif") -> Iterator[Cluster]:
    """Connect to Ray inside the context.

    A session of Ray that this process already has is used and left open. Otherwise `address`, or else the environment
    variable RAY_ADDRESS, names a running cluster, from which this process disconnects at the end; without either a
    private cluster is started on this machine and shut down at the end.

    Args:
        address: host:port of a running cluster, or None.
        workers: number of equal workers that the caller will start.
        job: name of this process in the dashboard of a running cluster; a submitted job has its own.

    Raises:
        ServiceUnavailable: no cluster answers at the address, or a private one does not start.
    """
    address = address or os.environ.get("RAY_ADDRESS", "").strip() or None
    set_ray_environment(address)
    import ray

    if ray.is_initialized():
        yield _fit_cluster(workers)
    elif address is not None:
        try:
            check_reachable(address)
            # A submitted job's processes have its metadata, which others would replace.
            submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
            named: dict[str, Any] = (
                {} if submitted else {"job_config": ray.job_config.JobConfig(metadata={"job_name": job})}
            )
            ray.init(address=address, **named, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = str(error).split("\n")[0]
            raise ServiceUnavailable(
                f"no Ray cluster can be used at '{address}' ({reason}); start it, correct 'embed.address' in "
                "params.yaml or RAY_ADDRESS, or remove both to use this machine"
            ) from None
        try:
            yield _fit_cluster(workers)
        finally:
            ray.shutdown()
    else:
        # Not in TMPDIR: Ray puts sockets there, whose paths may have 107 characters.
        folder = tempfile.mkdtemp(prefix="samif-", dir="/tmp")
        try:
            start_cluster(max(2, _cores(), workers), folder)
            yield _fit_cluster(workers)
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def check_reachable(address: str) -> None:
    """Raise OSError at once if nothing listens at host:port; Ray would try for minutes. "auto" is not checked."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), _CONNECT_SECONDS):
            pass


def _fit_cluster(workers: int) -> Cluster:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return fit(workers, [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes])


def fit(workers: int, nodes: Sequence[tuple[int, int]]) -> Cluster:
    """Resources of equal workers on `nodes` (CPUs, GPUs): as many workers as fit, up to `workers`, then the most CPUs
    for each with which all of them still fit."""
    gpus = sum(gpu for _, gpu in nodes)
    fitting = max(1, min(workers, gpus or sum(cpu for cpu, _ in nodes)))

    def capacity(share: int) -> int:
        return sum(min(cpu // share, gpu) if gpus else cpu // share for cpu, gpu in nodes)

    shares = [share for share in range(1, max((cpu for cpu, _ in nodes), default=0) + 1) if capacity(share) >= fitting]
    return Cluster(fitting, max(shares, default=1), min(gpus, 1))


def picklable(error: SamifError) -> SamifError:
    """The same sentence as an error of `samif.errors`: subclasses with other arguments cannot be sent by Ray."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return cast(type[SamifError], kind)(str(error))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
