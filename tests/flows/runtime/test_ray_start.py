"""Starts of a private Ray cluster that Ray gives up, as it does after 30 s on a machine with other work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from flows.runtime.ray_cluster import ray_cluster
from samif.errors import ServiceUnavailable

TOO_LATE = "The current node timed out during startup. This could happen because the GCS has become overloaded."


class Starts:
    """Stands for `ray.init`: each failing start leaves a process, as Ray's does."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.left: list[subprocess.Popen[bytes]] = []
        self.folders: list[str] = []

    def __call__(self, _temp_dir: str, **_: object) -> None:
        self.folders.append(_temp_dir)
        if self._errors:
            command = [sys.executable, "-c", "import time; time.sleep(600)", f"--session-dir={_temp_dir}/session"]
            self.left.append(subprocess.Popen(command))
            raise self._errors.pop(0)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_late_start_is_repeated(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    starts = Starts(*[Exception(TOO_LATE)] * failures)
    monkeypatch.setattr(ray, "init", starts)
    with ray_cluster(None, 2) as cluster:
        assert cluster.workers == 2
    assert len(starts.folders) == failures + 1
    assert all(process.poll() is not None for process in starts.left)
    assert not any(Path(folder).exists() for folder in starts.folders)


@pytest.mark.parametrize("error", [Exception(TOO_LATE), RuntimeError("Failed to start the GCS.\nSee the log")])
def test_a_cluster_that_never_starts_is_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    starts = Starts(*[error] * 3)
    monkeypatch.setattr(ray, "init", starts)
    with pytest.raises(ServiceUnavailable) as refusal, ray_cluster(None, 2):
        raise AssertionError("there is no cluster")
    first = str(error).split("\n")[0].rstrip(".")
    assert str(refusal.value).startswith(f"Ray did not start on this machine, 3 attempts were made ({first}); stop")
    assert "\n" not in str(refusal.value)
    assert len(starts.left) == 3 and all(process.poll() is not None for process in starts.left)
    assert not any(Path(folder).exists() for folder in starts.folders)


def test_a_full_disk_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(OSError(28, "No space left on device"))
    monkeypatch.setattr(ray, "init", starts)
    with pytest.raises(OSError, match="No space left"), ray_cluster(None, 2):
        raise AssertionError("there is no cluster")
    assert len(starts.left) == 1 and starts.left[0].poll() is not None


@pytest.mark.parametrize("submitted", [False, True])
def test_a_running_cluster_is_told_what_works_on_it(monkeypatch: pytest.MonkeyPatch, submitted: bool) -> None:
    """A submitted job has a name already, in metadata that its processes must not replace."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    monkeypatch.setattr("flows.runtime.ray_cluster.check_reachable", lambda _: None)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if submitted:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with ray_cluster("ray-head:6379", 2, "samif embed tiny"):
        pass
    (options,) = given
    assert options["address"] == "ray-head:6379"
    assert ("job_config" in options) is not submitted
    assert submitted or options["job_config"].metadata["job_name"] == "samif embed tiny"
