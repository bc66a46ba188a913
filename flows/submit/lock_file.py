"""The dvc.lock of a finished job, brought into the workspace (docs/adr/0025)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from flows.workspace.layout import Layout
from flows.workspace.lock import BusyError, exclusive
from flows.workspace.revision import lock_state
from flows.workspace.run_request import RunRequest
from samif.io import files
from samif.io.hashing import file_sha256

logger = logging.getLogger(__name__)

REQUEST, RECORD = "request.json", "record.json"

LockFile = Literal["written", "unchanged", "kept", "missing"]
"""What became of the workspace's dvc.lock: the run's was written, it was the run's already, it was changed here and is
kept, or the run's has not reached the registry."""


def update_lock(layout: Layout, request: RunRequest, folder: Path, say: Callable[[str], None]) -> LockFile:
    """Replace the workspace's dvc.lock by that of a job that succeeded.

    It is replaced only if it is the one that the job began with, or the one that `request` was made with and either a
    folder of an earlier submit or a commit has it. Any other was written here meanwhile: it is kept, and `say` is
    called with a sentence about it.

    Args:
        request: of this submit.
        folder: what was fetched of the job: `request.json` of the submit that started it, `record.json`, `dvc.lock`.
        say: called with one sentence, unless the file is unchanged.
    """
    fetched = folder / layout.lock.name
    if not _is_complete(folder, fetched):
        say("the run's dvc.lock is not in the registry, so the workspace's is as it was; another --attempt sends it")
        return "missing"
    try:
        with exclusive(layout.root):
            now = file_sha256(layout.lock) if layout.lock.exists() else None
            if now == file_sha256(fetched):
                return "unchanged"
            began = RunRequest.model_validate_json((folder / REQUEST).read_bytes())
            if now not in (None, began.dvc_lock) and not (now == request.dvc_lock and _is_recoverable(layout, now)):
                say(f"dvc.lock was changed here after the job began, so it is kept; the run's is {fetched}")
                return "kept"
            files.commit(layout.lock, fetched.read_bytes())
    except BusyError as error:
        say(f"{error}; dvc.lock is kept, the run's is {fetched}")
        return "kept"
    say("dvc.lock is now that of the run; commit it, if the workspace is in git")
    return "written"


def _is_complete(folder: Path, fetched: Path) -> bool:
    """Whether record and dvc.lock are of the end of the run: while it runs, earlier states are published."""
    if not fetched.exists() or not (folder / RECORD).exists() or not (folder / REQUEST).exists():
        return False
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return bool(record["outcome"] == "done" and record["dvc_lock"] == file_sha256(fetched))


def _is_recoverable(layout: Layout, sha256: str) -> bool:
    """Whether this dvc.lock can be had again: from an earlier submit's folder, or from git."""
    earlier = (layout.state / "runs").glob(f"*/{layout.lock.name}")
    return any(file_sha256(path) == sha256 for path in earlier) or lock_state(layout, sha256) == "committed"
