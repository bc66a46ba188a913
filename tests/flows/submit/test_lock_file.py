"""The dvc.lock of a finished job reaches the workspace, and never over one that was written here meanwhile."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.submit.lock_file import LockFile, update_lock
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from flows.workspace.lock import exclusive
from flows.workspace.run_request import RunRequest, request_of
from samif.io.hashing import file_sha256
from tests.flows.workspace.test_edit import coco


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A workspace before its first run."""
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    return Layout(root)


def job(layout: Layout, name: str, began: RunRequest, lock: str, outcome: str = "done") -> Path:
    """The folder of a job, as it is fetched."""
    folder = layout.state / "runs" / name
    folder.mkdir(parents=True)
    (folder / "dvc.lock").write_text(lock)
    (folder / "request.json").write_text(began.model_dump_json())
    record = {"outcome": outcome, "dvc_lock": file_sha256(folder / "dvc.lock")}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def update(layout: Layout) -> Callable[..., tuple[LockFile, str | None, str]]:
    """What became of the workspace's dvc.lock, its text, and what was said."""

    def update(folder: Path, request: RunRequest | None = None) -> tuple[LockFile, str | None, str]:
        said: list[str] = []
        done = update_lock(layout, request or request_of(layout.root, "ann"), folder, said.append)
        return done, layout.lock.read_text() if layout.lock.exists() else None, "\n".join(said)

    return update


Update = Callable[..., tuple[LockFile, str | None, str]]


def test_each_run_brings_its_dvc_lock(layout: Layout, update: Update) -> None:
    first = job(layout, "first", request_of(layout.root, "ann"), "one")
    assert update(first) == ("written", "one", "dvc.lock is now that of the run; commit it, if the workspace is in git")
    assert update(first) == ("unchanged", "one", "")
    second = job(layout, "second", request_of(layout.root, "ann"), "two")
    assert update(second)[:2] == ("written", "two")


def test_a_client_that_comes_later_gets_it_too(layout: Layout, update: Update) -> None:
    """Its workspace is a fresh clone: at the state that the job began with, or at none."""
    layout.lock.write_text("one")
    folder = job(layout, "job", request_of(layout.root, "ann"), "two")
    assert update(folder)[:2] == ("written", "two")
    layout.lock.unlink()
    assert update(folder)[:2] == ("written", "two")


@pytest.mark.parametrize("when", ["while the job ran", "before attaching to it"])
def test_what_was_written_here_meanwhile_is_kept_and_that_is_said(layout: Layout, update: Update, when: str) -> None:
    layout.lock.write_text("one")
    request = request_of(layout.root, "ann")
    folder = job(layout, "job", request, "two")
    layout.lock.write_text("edited here")
    done, lock, said = update(folder, request if when == "while the job ran" else None)
    assert (done, lock) == ("kept", "edited here")
    assert said == f"dvc.lock was changed here after the job began, so it is kept; the run's is {folder / 'dvc.lock'}"


def test_data_that_are_as_before_get_the_dvc_lock_of_before(layout: Layout, update: Update) -> None:
    """Of the two jobs' results the later one is in the workspace; both are in their folders, so nothing is lost."""
    first = job(layout, "first", request_of(layout.root, "ann"), "one")
    update(first)
    update(job(layout, "second", request_of(layout.root, "ann"), "two"))
    assert update(first)[:2] == ("written", "one")


def test_a_job_that_ends_late_leaves_the_result_of_a_later_one(layout: Layout, update: Update) -> None:
    request = request_of(layout.root, "ann")
    late = job(layout, "late", request, "one")
    update(job(layout, "second", request, "two"), request)
    assert update(late, request)[:2] == ("kept", "two")


def test_a_committed_dvc_lock_can_be_had_again(layout: Layout, update: Update) -> None:
    """As in a workflow, whose clone has no folder of earlier submits."""
    folder = job(layout, "job", request_of(layout.root, "ann"), "one")
    layout.lock.write_text("two")
    who = ("-c", "user.name=ann", "-c", "user.email=ann@line.example")
    for words in (("init", "--quiet"), ("add", "dvc.lock"), (*who, "commit", "--quiet", "--message", "two")):
        subprocess.run(["git", "-C", layout.root, *words], check=True, capture_output=True)
    assert update(folder)[:2] == ("written", "one")


@pytest.mark.parametrize("fault", ["record.json", "dvc.lock", "request.json", "running", "another dvc.lock"])
def test_what_was_published_before_the_end_is_not_taken(layout: Layout, update: Update, fault: str) -> None:
    folder = job(layout, "job", request_of(layout.root, "ann"), "one", "running" if fault == "running" else "done")
    if fault == "another dvc.lock":
        (folder / "dvc.lock").write_text("half")
    elif fault != "running":
        (folder / fault).unlink()
    done, lock, said = update(folder)
    assert (done, lock) == ("missing", None) and "not in the registry" in said and "--attempt" in said


def test_a_workspace_at_work_keeps_its_dvc_lock(layout: Layout, update: Update) -> None:
    folder = job(layout, "job", request_of(layout.root, "ann"), "one")
    with exclusive(layout.root):
        done, lock, said = update(folder)
    assert (done, lock) == ("kept", None) and "another samif command is at work" in said and str(folder) in said
    assert update(folder)[:2] == ("written", "one")
