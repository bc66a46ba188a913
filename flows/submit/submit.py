"""Send a run to a Ray cluster, once, and bring back what it left."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from flows.runtime.retry import Transient
from flows.submit.job_artifacts import Kept
from flows.submit.jobs import HeadLostError, Jobs, State
from flows.submit.package import Submission, pack
from flows.submit.reachability import is_here
from flows.workspace.layout import Layout
from flows.workspace.run_request import RunRequest
from samif.config import load_params
from samif.errors import SamifError
from samif.io import files

LOG, RECORD = "driver.log", "record.json"
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Submitted:
    """A submission.

    Attributes:
        id: of the job on the cluster.
        request: digest of the request.
        attached: there was such a job already.
        status: SUCCEEDED, or where the job stood when it was left alone.
        folder: `.samif/runs/ID/` with the driver's log, the run's record, dvc.lock and reports as far as they came.
        record: of the run, see `flows.pipeline.run.Record`; none while it is not over.
    """

    id: str
    request: str
    attempt: int
    attached: bool
    status: str
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
        patience: seconds for which the head may be silent.
        say: called with one sentence at a time.
        write: called with the driver's log, piece by piece.

    Raises:
        SamifError: out of reach, refused, failed, stopped, or the head was lost; the log so far is kept.
    """
    jobs = Jobs(address)
    sent, started = _started(jobs, root, request, attempt, shared)
    name, attached = sent.id, not started
    say(f"{'attached to' if attached else 'started'} job {name} at {jobs.address}")
    folder = Layout(root.resolve()).state / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    files.commit(folder / "request.json", (request.model_dump_json(indent=1) + "\n").encode())
    if not follow and not (state := _now(jobs, name)).has_ended:
        return Submitted(name, request.digest, sent.attempt, attached, state.status, folder, None)
    try:
        state = _followed(jobs, name, folder, patience, write)
    finally:
        with suppress(SamifError):  # the log is here; what became of the job is what has to be said
            params = load_params(root / "params.yaml")
            Kept(params.registry.tracking_uri, root.resolve(), params.line, name).fetch(folder, LOG)
    if not state.succeeded:
        raise SamifError(_failure(name, state, folder, sent.attempt))
    return Submitted(name, request.digest, sent.attempt, attached, state.status, folder, _record(folder))


def _started(
    jobs: Jobs, root: Path, request: RunRequest, attempt: int | None, shared: Sequence[Path]
) -> tuple[Submission, bool]:
    """What was sent, and whether it was started now."""
    try:
        for number in (attempt,) if attempt is not None else count(1):
            with tempfile.TemporaryDirectory(prefix="samif-submit-") as build:
                parcel = pack(root, request, jobs.address, number, shared, Path(build))
                sent = parcel.submission
                if attempt is None and (state := jobs.find(sent.id)) and state.has_ended and not state.succeeded:
                    continue
                metadata = {"line": sent.line, "request": request.digest, "who": request.who}
                started = jobs.start(sent.id, _command(jobs.address), parcel.folder, parcel.wheel, metadata)
                return sent, started
        raise AssertionError("attempts never end")
    except Transient as error:
        raise SamifError(
            f"the head at {jobs.address} went silent while the run was sent ({error}); submit again: a run that had "
            "been started is attached to"
        ) from None


def _command(address: str) -> str:
    """Starts the driver: by the cluster's `python`, or by ours where the cluster is this machine and has it too."""
    mine = shlex.quote(sys.executable) if is_here(address) else "/"
    return f'P={mine}; test -f "$P" || P=python; exec "$P" -u -m flows.submit.driver'


def _now(jobs: Jobs, name: str) -> State:
    try:
        return jobs.find(name) or State("PENDING", "")
    except Transient:
        return State("PENDING", "")


def _followed(jobs: Jobs, name: str, folder: Path, patience: float, write: Callable[[str], None]) -> State:
    with (folder / LOG).open("w", encoding="utf-8") as log:

        def both(piece: str) -> None:
            log.write(piece)
            log.flush()
            write(piece)

        try:
            return jobs.follow(name, both, patience)
        except HeadLostError as error:
            raise SamifError(
                f"the head at {jobs.address} was lost during job {name} ({error}); its log up to then is "
                f"{folder / LOG}, what it finished lies in registry, store and DVC remote; submit again to go on"
            ) from None


def _failure(name: str, state: State, folder: Path, attempt: int) -> str:
    again = f"its log is {folder / LOG}; --attempt {attempt + 1} starts it once more"
    if state.status == "STOPPED":
        return f"job {name} was stopped before it was done; {again}"
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    said = next((line.removeprefix("samif: ") for line in reversed(lines) if line.startswith("samif: ")), None)
    return f"job {name} failed: {said or ' '.join(state.message.split())[:300]}; {again}"


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found
