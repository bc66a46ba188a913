"""Cancelling a run: what ends, what is kept, and what is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from flows.pipeline.cancel import cancel_run, interrupt, running, what_stands
from flows.pipeline.run import last_run
from flows.runtime.process import this_process
from flows.submit import cancel as cancelling
from flows.submit.jobs import JobState
from flows.submit.submit import ADDRESS
from flows.workspace.lock import exclusive
from samif.errors import ConfigError, ObjectMissing, ServiceUnavailable
from tests.support.console import SAMIF
from tests.support.drawn import drawn_workspace


def started(root: Path) -> psutil.Popen:
    """A run that has finished its first stage and is at work on another."""
    with (root / "said.txt").open("w") as said:
        run = psutil.Popen([str(SAMIF), "run", "--who", "ann"], cwd=root, stdout=said, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not ((last_run(root) or {}).get("stages") and any("stage" in p.cmdline() for p in below(run))):
        assert run.poll() is None and time.monotonic() < deadline, (root / "said.txt").read_text()
        time.sleep(0.1)
    return run


def below(run: psutil.Popen) -> list[psutil.Process]:
    found = []
    for process in run.children(recursive=True):
        try:
            process.cmdline()
            found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
def test_a_run_is_cancelled_and_another_goes_on(tmp_path: Path) -> None:
    root = drawn_workspace(tmp_path, {}, base_images=24, mixed_images=12, val_images=12)
    run = started(root)
    processes = below(run)
    done = subprocess.run([str(SAMIF), "cancel"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cancelled the run by ann: " in done.stdout and "(dataset" in done.stdout
    assert "'samif run' goes on from there" in done.stdout
    assert run.wait(30) == 130
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    record = last_run(root)
    assert record is not None and record["outcome"] == "interrupted" and record["stages"][0]["stage"] == "dataset"
    assert record["stages"][0]["cost"]["cpu_seconds"] > 0.1
    assert "Traceback" not in (root / "said.txt").read_text()
    with exclusive(root):  # nobody holds it, and nothing is half written
        assert not list((root / "artifacts").rglob("*.part")) and not list((root / "artifacts").rglob("*.tmp*"))
    again = subprocess.run([str(SAMIF), "cancel"], cwd=root, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (1, "") and "there is nothing to cancel" in again.stderr
    assert [reason["stage"] for reason in json.loads(why(root))["now"] if not reason["will_run"]][:1] == ["dataset"]


def why(root: Path) -> str:
    return subprocess.run([str(SAMIF), "why", "--json"], cwd=root, capture_output=True, text=True, check=True).stdout


def recorded(root: Path, process: dict[str, Any] | None, outcome: str = "running") -> Path:
    """A workspace whose latest run says so."""
    folder = root / ".samif" / "runs"
    folder.mkdir(parents=True)
    (root / "params.yaml").write_text("line: demo\n")
    content = {"outcome": outcome, "who": "ann", "stages": []} | ({} if process is None else {"process": process})
    (folder / "20260101T000000000000Z.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("process", "outcome"),
    [
        (None, "running"),  # of an earlier release
        ({"pid": 2**22 - 1}, "running"),  # it was killed
        ({"started": 1.0}, "running"),  # another process has its number now
        ({}, "done"),
        ({}, "failed"),
        ({}, "interrupted"),
    ],
)
def test_nothing_is_signalled_where_no_run_is_under_way(
    process: dict[str, Any] | None, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.pipeline.cancel.interrupt", lambda pid: pytest.fail(f"signalled {pid}"))
    mine = None if process is None else this_process().model_dump() | process
    with pytest.raises(ObjectMissing, match="no run is under way"):
        cancel_run(recorded(tmp_path / "ws", mine, outcome), 1.0)


def test_a_run_of_another_machine_or_workspace_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr("flows.pipeline.cancel.interrupt", sent.append)
    elsewhere = recorded(tmp_path / "elsewhere", this_process().model_dump() | {"host": "another-machine"})
    with pytest.raises(ConfigError, match="is on another-machine; cancel it there"):
        cancel_run(elsewhere, 1.0)
    recorded(tmp_path / "theirs", this_process().model_dump())
    with pytest.raises(ObjectMissing):
        cancel_run(recorded(tmp_path / "mine", None, "done"), 1.0)
    assert sent == [] and running(tmp_path / "theirs") is not None
    with pytest.raises(ServiceUnavailable, match="has not ended after 1 s"):
        cancel_run(tmp_path / "theirs", 1.0)
    assert len(sent) == 1
    with pytest.raises(ConfigError, match="is not a workspace"):
        cancelling.cancel(tmp_path, 1.0)


def test_an_interrupt_reaches_the_processes_below_in_their_group_only() -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)']\n"
        "made = [subprocess.Popen(sleep, stdout=subprocess.PIPE, start_new_session=own) for own in (False, True)]\n"
        "[p.stdout.readline() for p in made]\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "print(made[0].wait(), made[1].poll(), flush=True)\n"
        "made[1].kill()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    interrupt(process.pid)
    assert process.stdout.readline().split()[1] == "None"
    assert process.wait(10) == 0
    interrupt(process.pid)  # it has ended: nothing happens


class _Jobs:
    """A cluster that knows these jobs."""

    states: ClassVar[dict[str, str]] = {}
    ends = True

    def __init__(self, address: str) -> None:
        self.address = address

    def find(self, name: str) -> JobState | None:
        return JobState(self.states[name], "", None) if name in self.states else None

    def stop(self, name: str) -> None:
        if self.ends:
            self.states[name] = "STOPPED"


def test_submitted_jobs_of_this_workspace_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "Jobs", _Jobs)
    _Jobs.states = {"a": "RUNNING", "b": "PENDING", "c": "SUCCEEDED", "other": "RUNNING"}
    root = recorded(tmp_path / "ws", None, "done")
    for name in ("a", "b", "c", "lost"):
        (root / ".samif" / "runs" / name).mkdir()
        (root / ".samif" / "runs" / name / ADDRESS).write_text("http://head:8265\n")
    said = cancelling.cancel(root, 5.0)
    assert [sentence.split(":")[0] for sentence in said] == ["stopped job a at http", "stopped job b at http"]
    assert _Jobs.states == {"a": "STOPPED", "b": "STOPPED", "c": "SUCCEEDED", "other": "RUNNING"}
    with pytest.raises(ObjectMissing, match="nothing to cancel"):
        cancelling.cancel(root, 5.0)
    (root / ".samif" / "runs" / "other").mkdir()
    (root / ".samif" / "runs" / "other" / ADDRESS).write_text("http://head:8265\n")
    monkeypatch.setattr(_Jobs, "ends", False)
    with pytest.raises(ServiceUnavailable, match="job other was told to stop and has not ended after 1 s"):
        cancelling.cancel(root, 1.0)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"outcome": "interrupted", "stages": []}, "no stage had finished; 'samif run' goes on"),
        ({"outcome": "interrupted", "stages": [{"stage": "dataset"}]}, "1 stage finished (dataset) and kept;"),
        ({"outcome": "interrupted", "stages": [{"stage": "a"}, {"stage": "b"}]}, "2 stages finished (a, b)"),
        ({"outcome": "done", "stages": []}, "had ended before it was interrupted"),
    ],
)
def test_what_stands_is_said(record: dict[str, Any], says: str) -> None:
    assert says in what_stands(record | {"who": "ann"})
