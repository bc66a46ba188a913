"""One run: the request, the pipeline, registration and reports, and a record that is kept after any crash."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.pipeline.explain import StageReason, stage_reasons
from flows.pipeline.reproduce import StageOutcome, reproduce
from flows.runtime.cost import Cost, total
from flows.runtime.log_format import RUN_ID_VARIABLE
from flows.runtime.process import this_process
from flows.workspace.dvc_config import use_git
from flows.workspace.dvc_yaml import prune, sync_pipeline
from flows.workspace.layout import Layout
from flows.workspace.lock import exclusive
from flows.workspace.revision import data_revision_of
from flows.workspace.run_request import RunRequest, check_unmoved
from flows.workspace.source_paths import check_sources
from samif.config import Params, load_params
from samif.errors import ObjectMissing
from samif.io import files
from samif.io.hashing import file_sha256

logger = logging.getLogger(__name__)

RECENT_RUNS = 50
"""Runs in which the seconds of a stage are looked for."""
Record = dict[str, Any]
"""A run's record, as .samif/runs/ID.json keeps it: {"schema": 1, "id", "request", "who", "why", "cause", "commit",
"params", "data_sha256", "data_revision", "dvc_lock", "started", "ended", "outcome": running|done|failed|interrupted,
"process": a `ProcessIdentity`,
"error", "reasons": [{"stage", "will_run", "reasons"}], "stages": [{"stage", "how": ran|restored, "seconds", "cost"}],
"cost", "up_to_date", "versions"}. `cost` of a stage that ran is a `Cost`, that of the run their sum, none where none
ran. `data_sha256` is the state that was asked for, `data_revision` the one that was read; `up_to_date` is true where no
stage ran."""


def run(root: Path, request: RunRequest, say: Callable[[str], None] = lambda _: None) -> Record:
    """Bring a workspace up to date: stages, versions in the registry, reports; returns the run's record.

    Args:
        root: the workspace.
        request: who asks and why, for the registry; made for the params.yaml that is there.
        say: called with one line of progress at a time.

    Raises:
        BusyError: another run is under way.
        ConfigError: params.yaml is wrong or has changed since the request, or takes data from another copy of the
            workspace.
        ObjectMissing: images or annotations are not where params.yaml says.
        ForeignLineError: the line is another workspace's.
        StageFailed: a stage refused or died; the record says failed.
        ServiceUnavailable: the registry or DVC's remote does not answer; what was computed is kept.
    """
    layout = Layout(root.resolve())
    with exclusive(layout.root):
        params = load_params(layout.params)
        check_unmoved(request, params, layout.params)
        if sync_pipeline(layout, params):
            say("dvc.yaml renewed: it was not what this version of samif writes")
        if use_git(layout):
            say("this is a git repository now: 'dvc exp' works here (core.no_scm in .dvc/config.local)")
        for path in prune(layout, params):
            say(f"removed {path.relative_to(layout.root)}: no session of that name in params.yaml")
        _mark_interrupted(layout)
        record = _new_record(request, stage_reasons(layout, params))
        _write(layout, record)
        os.environ[RUN_ID_VARIABLE] = record["id"]  # for the logs of this process and its stages
        try:
            _work(layout, params, record, say)
        except BaseException as error:
            record["outcome"] = "failed" if isinstance(error, Exception) else "interrupted"
            record["error"] = str(error).encode(errors="backslashreplace").decode()
            record["ended"] = _now()
            with suppress(OSError):  # such as a full disk, which is then the reason as well
                _write(layout, record)
            raise
        finally:
            os.environ.pop(RUN_ID_VARIABLE, None)
        record["ended"] = _now()
        _write(layout, record)
    return record


def last_run(root: Path) -> Record | None:
    """The record of the latest run, finished or not; None before the first."""
    records = _records(Layout(root.resolve()))
    return _read(records[-1]) if records else None


def stage_seconds(root: Path) -> dict[str, float]:
    """Seconds of every stage that has run, in the latest run that ran it."""
    found: dict[str, float] = {}
    for path in _records(Layout(root.resolve()))[-RECENT_RUNS:]:
        found |= {stage["stage"]: stage["seconds"] for stage in _read(path)["stages"] if stage["how"] == "ran"}
    return found


def _work(layout: Layout, params: Params, record: Record, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    for note in check_sources(layout, params):
        say(note)
    _check_ownership(layout, params)
    recomputed = _recompute_missing(layout, params, say)

    def finished(stage: StageOutcome) -> None:
        record["stages"].append(asdict(stage))
        _write(layout, record)

    reproduce(layout.root, say, finished)
    spent = total(Cost.model_validate(stage["cost"]) for stage in record["stages"] if stage["cost"] is not None)
    record["cost"] = None if spent is None else spent.model_dump(mode="json", exclude={"made"})
    record["up_to_date"] = not recomputed and all(stage["how"] == "restored" for stage in record["stages"])
    if not record["stages"]:
        say(f"{'' if recomputed else 'nothing to do: '}every stage is up to date")
    elif record["up_to_date"]:
        say("nothing was computed: every stage that is not up to date was restored from an earlier run")
    record["data_revision"], record["dvc_lock"] = data_revision_of(layout), file_sha256(layout.lock)

    from flows.registry.registration import register_all
    from flows.report.publish import publish

    versions = register_all(layout, params, record, say)
    publish(layout, versions)
    record["versions"] = versions
    record["seconds"] = round(time.monotonic() - started, 3)
    record["outcome"] = "done"


def _check_ownership(layout: Layout, params: Params) -> None:
    """Refuse a line of another workspace before hours of work. A registry that does not answer may do so by the end."""
    if params.registry.tracking_uri is not None:
        from flows.registry.mlflow_client import RegistryUnavailable
        from flows.registry.mlflow_store import MlflowStore
        from flows.registry.ownership import check

        try:
            check(MlflowStore(params.registry.tracking_uri, layout.root), params)
        except (RegistryUnavailable, ObjectMissing) as error:
            logger.info("whose line '%s' is will be checked at registration: %s", params.line, error)


def _recompute_missing(layout: Layout, params: Params, say: Callable[[str], None]) -> bool:
    """Compute again what the embedding store has lost, and return whether it had: DVC tracks the manifest only."""
    from flows.artifacts.embedding_manifest import EmbeddingManifest
    from flows.loaders.inputs import store_of

    store, lost = store_of(layout, params), set[bytes]()
    for path in (layout.embeddings, layout.semantic):
        if path.exists():
            manifest = EmbeddingManifest.load(path)
            namespace = store.namespace(manifest.encoder.digest, manifest.preprocessing, manifest.dtype)
            lost.update(map(bytes, manifest.images.raw[namespace.lacks(manifest.images)]))
    if lost:
        from flows.stages import run_stage

        say(f"the embedding store lacks {len(lost)} images that it had; computing them again")
        run_stage("embed", None, layout, params)
    return bool(lost)


def _new_record(request: RunRequest, reasons: Sequence[StageReason]) -> Record:
    now = datetime.now(UTC)
    return {
        "schema": 1,
        "id": now.strftime("%Y%m%dT%H%M%S%fZ"),
        "request": request.digest,
        **request.model_dump(mode="json", exclude={"schema_version"}),
        "data_revision": None,
        "started": now.isoformat(),
        "ended": None,
        "outcome": "running",
        "process": this_process().model_dump(),
        "error": None,
        "reasons": [asdict(reason) for reason in reasons],
        "stages": [],
        "cost": None,
        "up_to_date": False,
        "versions": None,
    }


def _mark_interrupted(layout: Layout) -> None:
    """The caller holds the workspace, so a record that still says running is of a run that was killed."""
    for path in _records(layout)[-1:]:
        record = _read(path)
        if record["outcome"] == "running":
            _write(layout, record | {"outcome": "interrupted"})


def _records(layout: Layout) -> list[Path]:
    return sorted((layout.state / "runs").glob("*.json"))


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write(layout: Layout, record: Record) -> None:
    path = layout.state / "runs" / f"{record['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.commit(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def _now() -> str:
    return datetime.now(UTC).isoformat()
