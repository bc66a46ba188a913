"""Fault campaign: kill -9 at random moments of an embedding run over S3, and the result of running it again.

Each case has an empty prefix in a bucket, a run that is disturbed once and, unless that run succeeds, a second run.
Takes about twenty minutes. SAMIF_RECORD=1 also writes the table to benchmarks/FAULTS.md.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.embedding.encoder import describe_encoder
from flows.store import open_store
from samif.config import EncoderParams
from tests.support.embedding_job import Job, draw_noise
from tests.support.services import Ceph, ceph, skip_without_ceph

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parents[2] / "benchmarks" / "FAULTS.md"
COMMAND = "SAMIF_RECORD=1 python -m pytest -m slow tests/slow/test_embedding_faults.py"
IMAGES, SHARD, WORKERS, SEED = 500, 20, 2, 0
SHARDS_IN_FLIGHT = 2  # of each worker
RUN_SECONDS = 1800.0
"""For one run: no measurement, and so long that other work on the machine does not matter."""
CLUSTER_ATTEMPTS = 5
"""Ray gives each node 30 s to start, too short on a machine with other work."""
CASES, VICTIMS = 20, ("worker", "raylet", "driver", "osd", "rgw")


@dataclass
class Case:
    """One disturbed run and its result."""

    victim: str
    after: float = 0.0
    survived: bool = False
    sentence: str = ""
    same: bool = False
    encoded: int = 0
    allowed: int = 0
    damages: int = 0

    @property
    def repeated(self) -> int:
        return self.encoded - IMAGES

    @property
    def row(self) -> str:
        how = "continued" if self.survived else f"ended, continued by a second run: {self.sentence}"
        verdict = "same" if self.same else "**other**"
        return (
            f"| {self.victim} | {self.after:.1f} s | {how} | {verdict} | {self.repeated} of {self.allowed} "
            f"| {self.damages} |"
        )


@dataclass
class Campaign:
    """Images, a bucket, and the undisturbed digest to compare with."""

    folder: Path
    server: Ceph
    bucket: str
    random: random.Random = field(default_factory=lambda: random.Random(SEED))
    digest: str = ""
    seconds: float = 0.0
    cases: list[Case] = field(default_factory=list)

    def undisturbed(self) -> None:
        """Measure the digest, and the seconds from the first batch to the end."""
        job = self._job("undisturbed")
        with _running(job, self.server) as process:
            _until(lambda: _encoded(job) > 0, process)
            started = time.monotonic()
            assert process.wait(RUN_SECONDS) == 0, (self.folder / "said").read_text()
            self.seconds = time.monotonic() - started
        self.digest = Path(job.result).read_text()
        assert _encoded(job) == IMAGES

    def case(self, number: int, victim: str) -> Case:
        """Disturb one run, restart what was killed, run again if it failed, and compare."""
        part = self.random.uniform(0.0, 0.8)
        while (case := self._disturbed(f"{number}-{victim}-{part:.2f}", victim, part * self.seconds)) is None:
            part /= 2  # this run was faster than the measured one
        return case

    def _disturbed(self, name: str, victim: str, after: float) -> Case | None:
        """The case; None if the run ended before it could be disturbed."""
        case = Case(victim, after)
        with _nodes(victim) as (address, raylets):
            workers = len(raylets) if raylets else WORKERS
            job = self._job(name, workers, address)
            with _running(job, self.server) as process:
                _until(lambda: _encoded(job) > 0, process)
                time.sleep(after)
                if process.poll() is not None:
                    return None
                self._kill(victim, process, job, raylets)
                case.survived = process.wait(RUN_SECONDS) == 0
                said = (self.folder / "said").read_text().splitlines()
            case.sentence = next((line for line in reversed(said) if line.startswith("samif: ")), "killed")
            if not case.survived:
                _until(lambda: not any(_alive(pid) for pid in _processes(job)))
                with _running(job, self.server) as process:
                    assert process.wait(RUN_SECONDS) == 0, (self.folder / "said").read_text()
        case.same = Path(job.result).read_text() == self.digest
        case.encoded = _encoded(job)
        case.allowed = workers * SHARDS_IN_FLIGHT * SHARD
        info = describe_encoder(EncoderParams())
        namespace = open_store(job.store, Path()).namespace(info.digest, info.preprocessing_digest)
        case.damages = len(namespace.verify())
        return case

    def _job(self, name: str, workers: int = WORKERS, address: str | None = None) -> Job:
        log = self.folder / name
        log.mkdir()
        return Job(
            images=str(self.folder / "images.json"),
            store=f"s3://{self.bucket}/{name}",
            log=str(log),
            result=str(self.folder / f"{name}.digest"),
            workers=workers,
            shard_images=SHARD,
            address=address,
        )

    def _kill(self, victim: str, driver: subprocess.Popen[bytes], job: Job, raylets: list[int]) -> None:
        if victim == "driver":
            driver.kill()
        elif victim == "raylet":
            os.kill(self.random.choice(raylets[1:]), signal.SIGKILL)  # the first node holds the control store
        elif victim == "worker":
            os.kill(self.random.choice([pid for pid in _processes(job) if _alive(pid)]), signal.SIGKILL)
        else:
            self.server.kill(victim)
            time.sleep(self.random.uniform(2.0, 6.0))
            self.server.start(victim)
            self.server.wait()


@contextmanager
def _running(job: Job, server: Ceph) -> Iterator[subprocess.Popen[bytes]]:
    with (Path(job.log).parent / "said").open("wb") as said:
        process = subprocess.Popen(
            job.command(), env=os.environ | server.variables, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@contextmanager
def _nodes(victim: str) -> Iterator[tuple[str | None, list[int]]]:
    """If a raylet is the victim: a cluster of three nodes, its address and the process ids of its raylets."""
    if victim != "raylet":
        yield None, []
        return
    for attempt in range(1, CLUSTER_ATTEMPTS + 1):
        with _ray_nodes() as cluster:
            try:
                nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(3)]
            except Exception:  # Ray raises Exception itself when the time is over
                if attempt == CLUSTER_ATTEMPTS:
                    raise
                continue
            yield cluster.address, [node.all_processes["raylet"][0].process.pid for node in nodes]
            return


@contextmanager
def _ray_nodes() -> Iterator[Any]:
    """A Ray cluster without nodes; ends every process that is started for it, also of a node that came too late."""
    from ray.cluster_utils import Cluster

    before, cluster = set(psutil.Process().children()), Cluster()
    try:
        yield cluster
    finally:
        cluster.shutdown()
        left = [child for child in psutil.Process().children() if child not in before and "ray" in _command(child)]
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, timeout=10)


def _command(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _encoded(job: Job) -> int:
    return sum(file.stat().st_size for file in Path(job.log).iterdir())


def _processes(job: Job) -> list[int]:
    return [int(file.name) for file in Path(job.log).iterdir()]


def _alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    return False


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while not condition():
        assert process is None or process.poll() is None, f"the run ended with exit code {process.returncode}"
        assert time.monotonic() < deadline, f"not within {RUN_SECONDS:.0f} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    """An S3 server, images and the undisturbed run; writes the table at the end if SAMIF_RECORD is set."""
    skip_without_ceph()
    with (
        tempfile.TemporaryDirectory(prefix="samif-faults-") as name,
        ceph() as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("RAY_AUTH_MODE", "disabled")  # several processes share the clusters, all on loopback
        environment.setenv("RAY_worker_niceness", "0")  # as `samif run` sets it for a private cluster
        for variable, value in server.variables.items():
            environment.setenv(variable, value)
        draw_noise(Path(name), IMAGES, SEED)
        started = Campaign(Path(name), server, server.new_bucket())
        started.undisturbed()
        yield started
        if os.environ.get("SAMIF_RECORD") and len(started.cases) == CASES:
            TABLE.write_text(_page(started), encoding="utf-8")


@pytest.mark.parametrize("number", range(CASES))
def test_a_killed_process_changes_nothing(campaign: Campaign, number: int) -> None:
    case = campaign.case(number, VICTIMS[number % len(VICTIMS)])
    campaign.cases.append(case)
    assert case.same and case.repeated <= case.allowed and case.damages == 0, case.row


def _page(campaign: Campaign) -> str:
    cases = campaign.cases
    kept = sum(case.same and case.repeated <= case.allowed and case.damages == 0 for case in cases)
    repeated = statistics.mean(case.repeated for case in cases)
    head = f"""# Worker, node and storage failures

Command: `{COMMAND}`.
{IMAGES} images, encoder `tiny`, shards of {SHARD}, {WORKERS} workers (three nodes with one worker each when a raylet is
killed), store on Ceph's S3 server. One process is killed with SIGKILL at a random time after the first batch; an S3
daemon is restarted 2 to 6 seconds later. Without failures a run takes {campaign.seconds:.1f} s from the first batch.
*Repeated* counts images that were encoded twice; the limit is the number of images that the workers were processing.

In {kept} of {len(cases)} runs the manifest equals that of the undisturbed run, no more images were repeated than were
being processed, and the store has no damage. {repeated:.1f} images were repeated on average.

| killed | after | the run | manifest | repeated, limit | damage |
|---|---|---|---|---|---|
"""
    return head + "".join(f"{case.row}\n" for case in cases)
