"""The thread that starts runs: what it does after a killed run and after a failure of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from flows.triggers import server
from flows.triggers.app import Receiver, build_app
from flows.triggers.queue import Queue
from flows.triggers.server import Worker
from flows.workspace.init import init_workspace
from tests.flows.triggers.test_triggers import SECRET, ask, states
from tests.flows.workspace.test_edit import coco

TAKE = "from flows.triggers.queue import Queue; from pathlib import Path; Queue(Path(sys.argv[1])).take()"
DIES = f"import os, sys; {TAKE}; os.kill(os.getpid(), 9)"
WORKS = """
import sys
from pathlib import Path
from flows.triggers.worker import work

work(Path(sys.argv[1]), lambda *_: "run 2")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    return root


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def worker(root: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Polls five times a second; not started."""
    monkeypatch.setattr(server, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(server, "MOST_POLL_SECONDS", 0.4)
    return Worker(Queue(root), [], said.append)


def scripts(monkeypatch: pytest.MonkeyPatch, root: Path, *texts: str) -> list[subprocess.Popen[bytes]]:
    """The processes that are started instead of runs: the first script once, the last one from then on."""
    started: list[subprocess.Popen[bytes]] = []

    def start(_: object) -> subprocess.Popen[bytes]:
        text = texts[min(len(started), len(texts) - 1)]
        command = [sys.executable, "-c", text, str(root)]
        started.append(subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}))
        return started[-1]

    monkeypatch.setattr(server, "_start", start)
    return started


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_requests_of_a_killed_run_wait_and_are_tried_again(
    root: Path, worker: Worker, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = scripts(monkeypatch, root, DIES, WORKS)
    ask(root, "one", "two")
    with worker:
        until(lambda: states(root)["one"][0] == "done")
        until(lambda: worker.failure() is None)
    assert states(root) == {"one": ("done", "run 2"), "two": ("done", "run 2")} and len(started) == 2
    why = "a run was killed (exit code -9); its 2 requests wait and are tried again"
    assert said == [f"waiting requests cannot be carried out: {why}"]


def test_a_failure_of_the_thread_itself_shows_and_passes(
    root: Path, worker: Worker, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts(monkeypatch, root, WORKS)
    receiver = TestClient(build_app(Receiver(root, SECRET, failure=worker.failure)))
    broken = True

    def all_(queue: Queue) -> object:
        if broken:
            raise OSError("no memory")
        return listed(queue)

    listed = Queue.all
    ask(root, "one")
    assert receiver.get("/healthz").status_code == 503  # before its start, too
    monkeypatch.setattr(Queue, "all", all_)
    with worker:
        until(lambda: worker.failure() is not None and bool(said))
        time.sleep(1.0)
        assert said == ["waiting requests cannot be carried out: OSError: no memory"]  # once, not at each attempt
        answer = receiver.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "failing", "error": "OSError: no memory"})
        broken = False
        until(lambda: receiver.get("/healthz").status_code == 200)
        monkeypatch.setattr(Queue, "all", listed)
        until(lambda: states(root)["one"][0] == "done")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_shows(root: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: Worker) -> None:
        raise SystemExit

    monkeypatch.setattr(Worker, "_run_once", end)
    with worker:
        until(lambda: "restart the receiver" in (worker.failure() or ""))


def test_the_end_of_the_receiver_ends_its_run(root: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    started = scripts(monkeypatch, root, f"import sys, time; {TAKE}; time.sleep(600)")
    monkeypatch.setattr(server.os, "killpg", lambda pid, number: os.kill(pid, number))
    ask(root, "one")
    with worker:
        until(lambda: states(root)["one"][0] == "running")
    assert started[0].poll() is not None and states(root)["one"][0] == "waiting"
