"""Start a run on a Ray cluster once, and bring back what it left."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from flows.runtime.retry import Transient
from flows.submit.job_artifacts import JobArtifacts
from flows.submit.jobs import HeadLostError, Jobs, JobState
from flows.submit.lock_file import RECORD, REQUEST, LockFile, update_lock
from flows.submit.package import Submission, build_package
from flows.submit.reachability import is_local
from flows.workspace.layout import Layout
from flows.workspace.run_request import RunRequest
from samif.config import load_params
from samif.errors import IntegrityError, ObjectMissing, SamifError, ServiceUnavailable
from samif.io import files

logger = logging.getLogger(__name__)

LOG, SUBMITS = "driver.log", "submits.jsonl"
ADDRESS = "address"
"""File with the cluster's address, beside the log of a job that is not known to have ended."""
PATIENCE_SECONDS = 60.0


class JobFailed(SamifError):
    """The job on the cluster failed or was stopped."""


@dataclass(frozen=True)
class Submitted:
    """A submission.

    Attributes:
        id: of the job on the cluster.
        request: digest of the request.
        attached: there was such a job already.
        status: SUCCEEDED, or the state of the job when the command ended.
        up_to_date: nothing had to be computed: the job had succeeded before, or its run found every stage up to date.
        dvc_lock: what became of the workspace's dvc.lock; none while the job is not over.
        folder: `.samif/runs/ID/` with the driver's log, the run's record, dvc.lock and reports as far as they came.
        record: of the run, see `flows.pipeline.run.Record`; none while it is not over.
    """

    id: str
    request: str
    attempt: int
    attached: bool
    status: str
    up_to_date: bool
    dvc_lock: LockFile | None
    folder: Path
    record: dict[str, Any] | None


def submit(
    root: Path,
    request: RunRequest,
    address: str,
    *,
    attempt: int | None = 1,
    follow: bool = True,
    shared: Sequence[Path] = (),
    patience: float = PATIENCE_SECONDS,
    say: Callable[[str], None] = lambda _: None,
    write: Callable[[str], None] = lambda _: None,
) -> Submitted:
    """Start a run on a cluster, or attach to the same one where it was started before.

    Args:
        address: http://HEAD:8265.
        attempt: another number starts the same request once more; none takes the first that has not failed.
        follow: stay until the run is over.
        shared: folders that the cluster sees at the same paths.
        patience: seconds for which the head may not answer.
        say: called with one sentence at a time.
        write: called with the driver's log, piece by piece.

    Raises:
        ConfigError: the address is none, or something is out of the cluster's reach.
        ServiceUnavailable: the head does not answer, refuses the token, or was lost; the log so far is kept.
        JobFailed: the job failed or was stopped.
    """
    jobs = Jobs(address)
    layout = Layout(root.resolve())
    sent, started = _start(jobs, root, request, attempt, shared)
    name = sent.id
    folder = layout.state / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    if started:
        files.commit(folder / REQUEST, (request.model_dump_json(indent=1) + "\n").encode())
    files.commit(folder / ADDRESS, f"{jobs.address}\n".encode())
    state = JobState("PENDING", "", None) if started else _find(jobs, name)
    finished = state.succeeded
    if finished:
        say(
            f"nothing changed since job {name} succeeded{_on(state)}: same data, parameters and software, so nothing "
            f"is run; --attempt {sent.attempt + 1} runs it again"
        )
    else:
        say(f"{'started' if started else 'attached to'} job {name} at {jobs.address}")
    done = Submitted(name, request.digest, sent.attempt, not started, state.status, finished, None, folder, None)
    if follow or state.has_ended:
        try:
            # the log of a job that is over would read as if something ran now
            state = _follow(jobs, name, folder, patience, (lambda _: None) if finished else write)
        finally:
            _fetch(layout, name, folder)
        (folder / ADDRESS).unlink(missing_ok=True)
        if not state.succeeded:
            raise JobFailed(_failure(name, state, folder, sent.attempt))
        record = _record(folder)
        up_to_date = finished or bool(record and record["up_to_date"])
        lock = update_lock(layout, request, folder, say)
        done = replace(done, status=state.status, up_to_date=up_to_date, dvc_lock=lock, record=record)
    _note(done, request)
    return done


def _start(
    jobs: Jobs, root: Path, request: RunRequest, attempt: int | None, shared: Sequence[Path]
) -> tuple[Submission, bool]:
    """What was sent, and whether it was started now."""
    with tempfile.TemporaryDirectory(prefix="samif-submit-") as build:
        package = build_package(root, request, jobs.address, shared, Path(build))
        try:
            for number in (attempt,) if attempt is not None else count(1):
                package = package.attempt(number)
                sent = package.submission
                if attempt is None and (state := jobs.find(sent.id)) and state.has_ended and not state.succeeded:
                    continue
                metadata = {"job_name": f"samif run {sent.line}", "line": sent.line}
                metadata |= {"request": request.digest, "who": request.who}
                return sent, jobs.start(sent.id, _command(jobs.address), package.folder, package.wheel, metadata)
        except Transient as error:
            raise ServiceUnavailable(
                f"the head at {jobs.address} stopped answering while the run was sent ({error}); submit again: a run "
                "that had been started is attached to"
            ) from None
    raise AssertionError("attempts never end")


def _command(address: str) -> str:
    """Starts the driver: by the cluster's `python`, or by ours where the cluster is this machine and has it too."""
    mine = shlex.quote(sys.executable) if is_local(address) else "/"
    return f'P={mine}; test -f "$P" || P=python; exec "$P" -u -m flows.submit.driver'


def _find(jobs: Jobs, name: str) -> JobState:
    try:
        found = jobs.find(name)
    except Transient as error:
        logger.warning("the state of job %s is not known yet: %s", name, error)
        found = None
    return found or JobState("PENDING", "", None)


def _on(state: JobState) -> str:
    """When a job ended, for a sentence."""
    return f" on {datetime.fromtimestamp(state.ended, UTC):%Y-%m-%d at %H:%M} UTC" if state.ended else ""


def _follow(jobs: Jobs, name: str, folder: Path, patience: float, write: Callable[[str], None]) -> JobState:
    with (folder / LOG).open("w", encoding="utf-8") as log:

        def both(piece: str) -> None:
            log.write(piece)
            log.flush()
            write(piece)

        try:
            return jobs.follow(name, both, patience)
        except HeadLostError as error:
            raise ServiceUnavailable(
                f"the head at {jobs.address} was lost during job {name} ({error}); its log up to then is "
                f"{folder / LOG}, what it finished lies in registry, store and DVC remote; submit again to go on"
            ) from None


def _fetch(layout: Layout, name: str, folder: Path) -> None:
    """Fetch what the job published. A failure is no reason to hide how the job ended."""
    params = load_params(layout.params)
    try:
        JobArtifacts(params.registry.tracking_uri, layout.root, params.line, name).fetch(folder, LOG)
    except (ServiceUnavailable, ObjectMissing, IntegrityError) as error:
        logger.info("record, dvc.lock and reports of job %s were not fetched: %s", name, error, exc_info=True)


def _failure(name: str, state: JobState, folder: Path, attempt: int) -> str:
    again = f"its log is {folder / LOG}; --attempt {attempt + 1} starts it once more"
    if state.status == "STOPPED":
        return f"job {name} was stopped before it was done; {again}"
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    reason = next((line.removeprefix("samif: ") for line in reversed(lines) if line.startswith("samif: ")), None)
    return f"job {name} failed: {reason or ' '.join(state.message.split())[:300]}; {again}"


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _note(done: Submitted, request: RunRequest) -> None:
    """Add a line to the list of submits that came to this job."""
    line = {"at": datetime.now(UTC).isoformat(), "who": request.who, "why": request.why}
    line |= {key: value for key, value in asdict(done).items() if key not in ("folder", "record")}
    with (done.folder / SUBMITS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
