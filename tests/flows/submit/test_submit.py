"""`samif submit` against a real Ray head: started once, followed, failed, stopped, lost, and never telling a secret."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._raylet import AuthenticationTokenLoader, Config
from ruamel.yaml import YAML

from flows import cli
from flows.submit import package
from flows.submit.cancel import cancel
from flows.submit.submit import Submitted, submit
from flows.workspace.init import init_workspace
from flows.workspace.run_request import RunRequest, request_of
from samif.errors import ObjectMissing, SamifError
from tests.flows.workspace.test_edit import coco
from tests.support.ray_head import RayHead, ray_head, stand_in

SECRETS = {"AWS_SECRET_ACCESS_KEY": "s3-secret-e1f7", "MLFLOW_TRACKING_PASSWORD": "mlflow-secret-a90b"}
SECONDS = 60.0
CRON_JOB = YAML(typ="safe").load((Path(__file__).parents[3] / "infra" / "kubernetes" / "retrain.yaml").read_text())


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as head:
        yield head


@pytest.fixture(autouse=True)
def surroundings(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client's environment, and the stand-in instead of the real wheel. Ray reads the token once per process, so what
    it read for other tests is forgotten before, and this head's afterwards."""
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token} | SECRETS
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(package, "build_wheel", stand_in)
    forget_token()
    yield
    monkeypatch.undo()
    forget_token()


def forget_token() -> None:
    Config.initialize("")  # whether there are tokens at all is read once, too
    AuthenticationTokenLoader.instance().reset_cache()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace that has not run."""
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    return root


@pytest.fixture
def request_(root: Path) -> RunRequest:
    return request_of(root, "ann", "a new part")


def until(done: Callable[[], Any]) -> Any:
    """Whatever `done` gives once that is something."""
    deadline = time.monotonic() + SECONDS
    while not (found := done()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)
    return found


def samif(*words: str | Path) -> int:
    """The exit code of a command, run in this process."""
    before = sys.argv
    sys.argv = ["samif", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return int(ended.value.code or 0)


def jobs(head: RayHead) -> Any:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(head.address)


def test_twenty_submits_of_one_request_are_one_job(head: RayHead, root: Path, request_: RunRequest) -> None:
    def one(number: int) -> Submitted:
        mine = request_.model_copy(update={"who": f"ann{number}", "why": f"reason {number}"})
        return submit(root, mine, head.address)

    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(one, number) for number in range(12)]
        until((root / "started").exists)
        (root / "go").touch()
        done = [future.result(SECONDS) for future in running]
        done += pool.map(one, range(12, 20))
    assert len({found.id for found in done}) == 1
    assert [found.attached for found in done].count(False) == 1
    assert {found.status for found in done} == {"SUCCEEDED"}
    assert (root / "started").read_text().split() == [done[0].id]
    log = (done[0].folder / "driver.log").read_text()
    assert "'params.yaml'" in log and "'dvc.yaml'" in log and log.endswith("ended\n") and log.count("begun") == 1

    assert submit(root, request_, head.address, attempt=2, follow=False).attached is False
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("shots: 5", "shots: 6"))
    with pytest.raises(SamifError, match=r"params\.yaml has changed since the run was asked for"):
        submit(root, request_, head.address)
    assert submit(root, request_of(root, "ann"), head.address, follow=False).id != done[0].id


def _more_images(data: Path) -> None:
    (data / "images" / "new.png").write_bytes(b"a new image")


def _other_label(data: Path) -> None:
    text = (data / "annotations.json").read_text()
    (data / "annotations.json").write_text(text.replace('"category_id": 1', '"category_id": 2', 1))


def _replaced_image(data: Path) -> None:
    (data / "images" / "old.png").write_bytes(b"another image")


@pytest.mark.parametrize("change", [_more_images, _other_label, _replaced_image])
def test_changed_data_start_another_job_and_unchanged_data_none(
    head: RayHead, root: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Three nights of the schedule's command; the data change before the second."""
    (root / "go").touch()
    (root.parent / "data" / "images" / "old.png").write_bytes(b"an image")
    words = schedule(head, root)
    said = []
    for night in range(3):
        if night == 1:
            change(root.parent / "data")
        assert samif(*words) == 0
        said.append(capsys.readouterr().out)
    jobs = (root / "started").read_text().split()
    assert len(jobs) == len(set(jobs)) == 2
    assert all(f"started job {name} at" in text for name, text in zip(jobs, said[:2], strict=True))
    assert re.search(f"nothing changed since job {jobs[1]} succeeded on ....-..-.. at ..:.. UTC: same data", said[2])
    assert "begun" in said[1] and "begun" not in said[2]  # the log would read as if something ran
    listed = (root / ".samif" / "runs" / jobs[1] / "submits.jsonl").read_text().splitlines()
    submits = [json.loads(line) for line in listed]
    assert [(line["attached"], line["up_to_date"]) for line in submits] == [(False, False), (True, True)]
    assert {(line["who"], line["why"]) for line in submits} == {("schedule", "weekly retraining")}


def test_a_schedule_starts_a_failed_request_again(
    head: RayHead, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night without a registry must not end all later ones."""
    (root / "go").touch()
    (root / "bad").touch()
    words = schedule(head, root)
    assert samif(*words) == 1
    (root / "bad").unlink()
    assert samif(*words) == 0
    jobs = (root / "started").read_text().split()
    assert [name.rpartition("-")[2] for name in jobs] == ["1", "2"]
    assert samif(*words) == 0 and "nothing changed since" in capsys.readouterr().out
    assert samif(*words, "--attempt", "3") == 2


def schedule(head: RayHead, root: Path) -> list[str]:
    """The command of the CronJob, at our head and workspace."""
    container: dict[str, list[str]] = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    own = {"--address": head.address, "--workspace": str(root), "--shared": str(root.parent)}
    words = [word.partition("=") for word in container["command"]]
    assert words[0][0] == "samif" and own.keys() <= {name for name, _, _ in words}
    return [f"{name}{equals}{own.get(name, value)}" for name, equals, value in words[1:]]


def test_a_failed_job_ends_with_its_own_sentence(head: RayHead, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "go").touch()
    (root / "bad").touch()
    assert samif("submit", "-w", root, "--address", head.address) == 1
    out, err = capsys.readouterr()
    assert err.startswith("samif: job samif-ws-") and err.count("\n") == 1
    assert "failed: the gear is blurred; take it again; its log is" in err and "--attempt 2" in err
    assert "begun" in out
    assert samif("submit", "-w", root, "--address", head.address, "--no-follow") == 1
    assert "failed: the gear is blurred" in capsys.readouterr().err
    (root / "bad").unlink()
    mended = submit(root, request_of(root, "ann"), head.address, attempt=None)
    assert (mended.attempt, mended.attached, mended.status) == (2, False, "SUCCEEDED")
    assert submit(root, request_of(root, "ann"), head.address, attempt=None).attached


def test_a_stopped_job_is_a_failure_and_no_secret_is_told(
    head: RayHead, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert samif("submit", "-w", root, "--address", head.address, "--no-follow", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    until((root / "started").exists)
    secrets = {head.token, *SECRETS.values()}
    commands = "\n".join(" ".join(_command(process)) for process in psutil.process_iter())
    assert said["id"] not in commands  # the job's name needs to be in none either
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(samif, "submit", "-w", root, "--address", head.address)
        until(lambda: "begun" in capsys.readouterr().out)
        client = jobs(head)
        told = repr(client.get_job_info(said["id"])) + client.get_job_logs(said["id"])
        stopped = cancel(root, SECONDS)
        assert following.result(SECONDS) == 1
    assert [sentence.split(": ")[0] for sentence in stopped] == [f"stopped job {said['id']} at {head.address}"]
    with pytest.raises(ObjectMissing, match="nothing to cancel"):
        cancel(root, SECONDS)
    err = capsys.readouterr().err
    assert f"job {said['id']} was stopped before it was done" in err and err.count("\n") == 1
    kept = [path for folder in (head.folder, root) for path in folder.rglob("*") if path.is_file()]
    told += commands + b"\n".join(path.read_bytes() for path in kept).decode("utf-8", "replace")
    assert [secret for secret in secrets if secret in told] == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("token", ["0" * 48, None])
def test_a_wrong_token_is_refused(
    head: RayHead, root: Path, request_: RunRequest, token: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray caches the token of a process, so the client is another one."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"} | {"HOME": str(tmp_path)}
    environment |= {"RAY_AUTH_TOKEN": token} if token else {}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "submit", "-w", str(root)]
    done = psutil.subprocess.run(
        [*command, "--address", head.address], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "refuses the token; set RAY_AUTH_TOKEN" in done.stderr and str(token) not in done.stderr
    assert not (root / ".samif" / "runs").exists()


def test_the_real_driver_refuses_as_a_run_here_does_and_leaves_its_record(
    head: RayHead, root: Path, request_: RunRequest, monkeypatch: pytest.MonkeyPatch, migrated: Path
) -> None:
    (root / ".samif").mkdir()
    (root / ".samif" / "mlflow.db").write_bytes(migrated.read_bytes())
    (root.parent / "data" / "annotations.json").unlink()
    request_ = request_of(root, "ann", "a new part")
    monkeypatch.undo()
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    with pytest.raises(SamifError, match=r"^job samif-ws-\w+-1 failed: .*annotations\.json.*; its log is") as refusal:
        submit(root, request_, head.address)
    assert "\n" not in str(refusal.value)
    (folder,) = [path for path in (root / ".samif" / "runs").iterdir() if path.is_dir()]
    record = json.loads((folder / "record.json").read_text())
    assert (record["who"], record["why"], record["outcome"]) == ("ann", "a new part", "failed")
    assert record["request"] == request_.digest and record["error"] in str(refusal.value)
    assert record == json.loads((root / ".samif" / "runs" / f"{record['id']}.json").read_text())
    assert record["error"] in (folder / "driver.log").read_text()


def test_a_lost_head_is_one_sentence_and_the_log_is_kept(head: RayHead, root: Path, request_: RunRequest) -> None:
    """The last test: there is no head afterwards."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(submit, root, request_, head.address, patience=2.0)
        log = until(lambda: next((root / ".samif").glob("runs/*/driver.log"), None))
        until(lambda: "begun" in log.read_text())
        head.kill()
        with pytest.raises(SamifError, match=r"was lost during job .* 2 s.*; its log up to then is .*submit again"):
            following.result(SECONDS)
    assert "begun" in log.read_text()
