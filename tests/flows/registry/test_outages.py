"""The registry's server away in the middle of a registration: whatever was lost, nothing is there twice."""

from __future__ import annotations

import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.registry.mlflow_client import RegistryUnavailable
from flows.runtime.retry import retry_for
from flows.submit.job_artifacts import JobArtifacts
from flows.submit.package import Submission
from flows.workspace.run_request import RunRequest
from infra.services.daemon import Daemon, Launcher, find_tagged
from infra.services.mlflow import MlflowServer
from samif.errors import SamifError
from tests.support.services import free_port
from tests.support.tagged_line import TaggedLine

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server that goes away and comes back at the same address with the same data."""

    def __init__(self, folder: Path, migrated: Path) -> None:
        shutil.copy(migrated, folder / "tracking.db")
        backend, artifacts = f"sqlite:///{folder / 'tracking.db'}", str(folder / "artifacts")
        self._server = MlflowServer(folder, free_port(), backend, artifacts)
        self._launcher = Launcher(uuid.uuid4().hex, folder, die_with_starter=True)
        self.url = self._server.url
        self._daemon: Daemon = self._server.start(self._launcher)

    def start(self) -> None:
        self._daemon = self._server.start(self._launcher)
        self.wait()

    def wait(self) -> None:
        self._server.wait_until_ready(self._launcher, self._daemon)

    def kill(self) -> None:
        self._server.stop(self._daemon, signal.SIGKILL)

    def hang(self, seconds: float) -> None:
        processes = find_tagged(self._daemon.tag)
        for process in processes:
            process.suspend()
        time.sleep(seconds)
        for process in processes:
            process.resume()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("away"), migrated)
    try:
        made.wait()
        yield made
    finally:
        made.kill()


@pytest.fixture
def line(tmp_path: Path, server: Server) -> TaggedLine:
    return TaggedLine(tmp_path / "line", server.url, line=f"line-{uuid.uuid4().hex[:8]}")


def check(line: TaggedLine) -> None:
    """Four classifiers and their decoder, each once, whole, the newest one the challenger."""
    store, kinds = line.registry._store, ("decoder", "classifier")
    assert [list(store.find_versions(f"{line.line}-{kind}")) for kind in kinds] == [[1], [1, 2, 3, 4]]
    assert line.registry.aliases(line.line) == {"challenger": 4}
    assert [run.info.status for run in store.runs(line.line)] == ["FINISHED"] * 5
    logged = store.client.search_logged_models([store.experiment(line.line)])
    assert [str(model.status) for model in logged] == ["READY"] * 4
    for run in store.runs(line.line, "tags.kind = 'classifier'"):
        assert len(run.outputs.model_outputs) == len(run.inputs.dataset_inputs) == 1
    for number in (1, 2, 3, 4):
        assert line.registry.show(f"{line.line}/{number}").row.version == number


def wait_for_a_version(line: TaggedLine) -> None:
    deadline = time.monotonic() + 60
    while not line.registry._store.find_versions(f"{line.line}-decoder"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_hangs_is_waited_for(line: TaggedLine, server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        growing = pool.submit(line.grow)
        wait_for_a_version(line)
        server.hang(3.0)
        growing.result(60)
    check(line)


def test_a_killed_server_is_one_sentence_and_started_again_it_is_waited_for(
    line: TaggedLine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as hasty:
            hasty.setattr("flows.registry.mlflow_store.retry_for", lambda: retry_for(0.5))
            growing = pool.submit(line.grow)
            wait_for_a_version(line)
            server.kill()
            with pytest.raises(SamifError, match="does not answer; start it, .* run the same command again") as caught:
                growing.result(60)
            assert "\n" not in str(caught.value)
        growing = pool.submit(line.grow)
        server.start()
        growing.result(60)
    check(line)


@pytest.mark.parametrize(
    "call", ["create_run", "create_logged_model", "log_outputs", "log_inputs", "create_model_version"]
)
def test_an_answer_that_is_lost_doubles_nothing(line: TaggedLine, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server does what it is asked, and the connection breaks before it can say so, twice."""
    client, lost = line.registry._store.client, list[str]()
    real = getattr(client, call)

    def answerless(*words: Any, **more: Any) -> Any:
        answer = real(*words, **more)
        if len(lost) < 2:
            lost.append(call)
            raise requests.ConnectionError("broken off")
        return answer

    monkeypatch.setattr(client, call, answerless)
    line.grow()
    assert len(lost) == 2
    check(line)


def test_what_a_submission_left_is_kept_once_where_an_answer_was_lost(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = RunRequest(who="ann", commit=None, data_sha256=None, dvc_lock=None, params="0" * 64)
    sent = Submission(id="job-1", line="kept", attempt=1, request=request, here=None, links=(), shared=())
    kept = JobArtifacts(server.url, tmp_path, sent.line, sent.id)
    real, lost = kept._store.client.create_run, list[str]()

    def answerless(*words: Any, **more: Any) -> Any:
        answer = real(*words, **more)
        lost.append("once")
        if len(lost) == 1:
            raise requests.ConnectionError("broken off")
        return answer

    monkeypatch.setattr(kept._store.client, "create_run", answerless)
    kept.publish(sent, "running", {"driver.log": b"begun"})
    kept.publish(sent, "done", {"driver.log": b"begun, ended"})
    (run,) = kept._store.runs(sent.line)
    assert run.data.tags["outcome"] == "done" and len(lost) == 1
    kept.fetch(tmp_path, "driver.log")
    assert (tmp_path / "driver.log").read_bytes() == b"begun, ended"


def test_what_will_not_pass_is_not_waited_for(line: TaggedLine) -> None:
    """A refusal of the server's: the second attempt would hear the same."""
    asked = list[str]()

    def write() -> None:
        asked.append("once")
        line.registry._store.client.get_registered_model("nobody")

    with pytest.raises(SamifError, match="refused or interrupted the request") as caught:
        line.registry._store.written(write)
    assert asked == ["once"] and not isinstance(caught.value, RegistryUnavailable)
