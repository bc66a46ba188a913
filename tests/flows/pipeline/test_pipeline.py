"""The graph on real DVC: `samif` is a script that writes a stage's outputs, so that only the graph is under test."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo

from flows.pipeline.dvc_remote import with_retry
from flows.pipeline.explain import why
from flows.pipeline.reproduce import FAILURE_VARIABLE, reproduce, write_failure
from flows.pipeline.run import last_run, run
from flows.registry.mlflow_client import RegistryUnavailable
from flows.workspace.dvc_yaml import REVISIONS, prune, render_pipeline, sync_pipeline
from flows.workspace.edit import add_session, remove_session
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from flows.workspace.lock import exclusive
from flows.workspace.params_edit import new_text
from flows.workspace.run_request import request_of
from flows.workspace.shots import read_labels
from samif.config import EncoderParams, load_params
from samif.errors import SamifError
from tests.flows.workspace.test_edit import coco
from tests.support.services import Ceph

STUB = f"""#!{sys.executable} -IS
import hashlib, os, pathlib, signal, sys, time
words = sys.argv[1:sys.argv.index("--revision")]
assert words.pop(0) == "stage", words
stage, name = words[0], words[-1]
if pathlib.Path("fail").exists():
    pathlib.Path(os.environ["{FAILURE_VARIABLE}"]).write_text("class 'nut' is blurred; take it again")
    sys.exit(1)
while stage == "report" and pathlib.Path("hold").exists():
    time.sleep(0.05)
if pathlib.Path("interrupt").exists():  # as Ctrl-C reaches the stage, which ends as `samif` does
    sys.exit(130)
if pathlib.Path("die").exists():
    os.kill(os.getpid(), signal.SIGKILL)
params = pathlib.Path("params.yaml").read_text()
outs = {{"dataset": ["dataset/train.parquet", "dataset/val.parquet", "quarantine/dataset.json"],
        "embed": ["embeddings.parquet", "quarantine/embed.json"],
        "pretrain_decoder": ["decoder/d"], "propose": ["proposals/train.parquet", "proposals/val.parquet"],
        "train_base": ["classifiers/base/c"], "session": [f"classifiers/{{name}}/c"],
        "evaluate_base": ["evaluations/base/e", "metrics/base.json"],
        "evaluate": [f"evaluations/{{name}}/e", f"metrics/{{name}}.json"],
        "report": ["report/r", "plots/images/i", "metrics.json"]}}[stage]
text = hashlib.sha256("".join(line for line in params.splitlines() if "/" not in line).encode()).hexdigest()
if stage == "embed" and "\\nsemantic: null" not in params:
    outs.append("semantic.parquet")
index = text.encode()
if stage == "dataset" and "drawn:" in params:
    outs.append("drawn/p")
elif stage == "dataset":
    index = pathlib.Path(params.split("annotations:")[1].split()[0]).with_suffix(".parquet").read_bytes()
for out in outs:
    path = pathlib.Path("artifacts", out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(index if out.startswith("dataset/") else text.encode())
"""
"""A stage's result is another one under other params, so that nothing after it is spared by chance; that of
`dataset` is the index beside the annotation file."""

BASE_STAGES = ["dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base"]


@pytest.fixture(autouse=True)
def stub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages run with the `samif` that lies beside the interpreter: put the script above there."""
    script = tmp_path_factory.mktemp("bin") / "samif"
    script.write_text(STUB)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace, not yet run, with sessions s1 (hook) and s2 (nut); gear is labelled but in no session yet."""
    root = tmp_path / "ws"
    source = coco(tmp_path / "data")
    read_labels(source)[0].save(Path(source.annotations).with_suffix(".parquet"))
    init_workspace(root, source, None, [("s1", ["hook"]), ("s2", ["nut"])], shots=5)
    edit(root, "    - gear\n", "")
    return root


_finished: list[Path] = []


@pytest.fixture
def finished(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy of a workspace in which everything has run, made once."""
    if not _finished:
        folder = tmp_path_factory.mktemp("finished")
        go(request.getfixturevalue("workspace"))
        shutil.copytree(tmp_path, folder, dirs_exist_ok=True)
        for name in ("params.yaml", "dvc.lock"):
            relocate(folder / "ws" / name, tmp_path, folder)
        _finished.append(folder)
        return tmp_path / "ws"
    shutil.copytree(_finished[0], tmp_path, dirs_exist_ok=True)
    for name in ("params.yaml", "dvc.lock"):
        relocate(tmp_path / "ws" / name, _finished[0], tmp_path)
    return tmp_path / "ws"


def relocate(file: Path, old: Path, new: Path) -> None:
    file.write_text(file.read_text().replace(str(old), str(new)))


def go(root: Path) -> dict[str, str]:
    """What `samif run` does before registration; stage -> ran or restored."""
    layout = Layout(root)
    params = load_params(layout.params)
    sync_pipeline(layout, params)
    prune(layout, params)
    return {stage.stage: stage.how for stage in reproduce(root).stages}


def edit(root: Path, before: str, after: str) -> None:
    text = (root / "params.yaml").read_text()
    assert text.count(before) == 1, before
    (root / "params.yaml").write_text(text.replace(before, after))


def name_remote(root: Path, url: str) -> None:
    """As `dvc remote add --default shared URL` does."""
    config = root / ".dvc" / "config"
    text = config.read_text().replace("[core]\n", "[core]\n    remote = shared\n", 1)
    config.write_text(text + f"['remote \"shared\"']\n    url = {url}\n")


def will_run(root: Path) -> dict[str, tuple[str, ...]]:
    return {row.stage: row.reasons for row in why(root) if row.will_run}


def test_a_session_more_runs_only_itself_and_less_runs_nothing_anew(workspace: Path) -> None:
    assert set(will_run(workspace)["dataset"]) == {"never run"}
    first = go(workspace)
    assert [name for name in first if "@" not in name] == [*BASE_STAGES, "report"]
    assert set(first.values()) == {"ran"}
    assert len(first) == 11
    assert will_run(workspace) == {}

    add_session(workspace, "s3", ["gear"], shots=9)
    assert will_run(workspace) == {
        "session@s3": ("new stage",),
        "evaluate@s3": ("new stage", "follows session@s3"),
        "report": ("follows session@s3", "follows evaluate@s3"),
    }
    assert go(workspace) == {"session@s3": "ran", "evaluate@s3": "ran", "report": "ran"}

    edit(workspace, "shots: 9", "shots: 8")
    assert will_run(workspace) == {
        "session@s3": ("params sessions.s3.shots: 9 -> 8",),
        "evaluate@s3": ("follows session@s3",),
        "report": ("follows session@s3", "follows evaluate@s3"),
    }
    assert go(workspace) == {"session@s3": "ran", "evaluate@s3": "ran", "report": "ran"}
    edit(workspace, "shots: 8", "shots: 9")
    assert go(workspace) == {"session@s3": "restored", "evaluate@s3": "restored", "report": "restored"}

    remove_session(workspace, "s3")
    assert will_run(workspace) == {"report": ("session s3 removed",)}
    assert go(workspace) == {"report": "restored"}
    assert not (workspace / "artifacts" / "classifiers" / "s3").exists()
    assert will_run(workspace) == {}


def test_an_earlier_session_takes_the_later_ones_along(finished: Path) -> None:
    edit(finished, "classes: [hook]\n    shots: 5", "classes: [hook]\n    shots: 6")
    expected = {"session@s1", "session@s2", "evaluate@s1", "evaluate@s2", "report"}
    assert set(will_run(finished)) == set(go(finished)) == expected


def test_without_sessions_the_base_alone_runs(workspace: Path) -> None:
    remove_session(workspace, "s2")
    remove_session(workspace, "s1")
    assert list(go(workspace)) == [*BASE_STAGES, "report"]
    assert go(workspace) == {}


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        ("workers: 2", "workers: 7", set()),
        ("tracking_uri: null", "tracking_uri: sqlite:///x.db", set()),
        ("max_detections: 100", "max_detections: 99", {"evaluate_base", "evaluate@s1", "evaluate@s2", "report"}),
        (
            "prompts_per_shot: 5",
            "prompts_per_shot: 6",
            {"session@s1", "session@s2", "evaluate@s1", "evaluate@s2", "report"},
        ),
        (
            "head: lda ",
            "head: cosine ",
            {"train_base", "evaluate_base", "session@s1", "session@s2", "evaluate@s1", "evaluate@s2", "report"},
        ),
    ],
)
def test_a_parameter_reruns_what_names_it(finished: Path, before: str, after: str, runs: set[str]) -> None:
    edit(finished, before, after)
    assert set(will_run(finished)) == runs
    assert set(go(finished)) == runs


def test_a_semantic_encoder_comes_and_goes(finished: Path) -> None:
    """Its features are kept beside the embeddings; which part a classifier takes is only the classifier's business."""
    text = (finished / "params.yaml").read_text()
    edit(finished, "\nsemantic: null", f"\nsemantic: {{model: vit_x, checkpoint: w.pth, sha256: {'ab' * 32}}}")
    assert set(go(finished).values()) == {"ran"} and (finished / "artifacts" / "semantic.parquet").exists()
    assert go(finished) == {}
    params = (finished / "params.yaml").read_text()
    (finished / "params.yaml").write_text(re.sub(r"(?m)^  features: \[.*?\]", "  features: [token, semantic]", params))
    of_classifiers = {f"{stage}@{name}" for stage in ("session", "evaluate") for name in ("s1", "s2")}
    assert set(go(finished)) == {"train_base", "evaluate_base", *of_classifiers, "report"}
    (finished / "artifacts" / "semantic.parquet").unlink()
    assert will_run(finished)["embed"] == ("output artifacts/semantic.parquet missing",)
    (finished / "params.yaml").write_text(text)
    assert set(go(finished)) == {"train_base", "evaluate_base", *of_classifiers, "report"}
    assert go(finished) == {} and "semantic" not in (finished / "dvc.yaml").read_text()


def test_data_and_lost_outputs_are_noticed(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "images" / "new.png").write_bytes(b"x")
    assert will_run(finished)["dataset"] == (f"dependency {tmp_path}/data/images changed",)
    # The script's result does not depend on the image, so nothing after it runs.
    assert go(finished) == {"dataset": "ran"}
    (finished / "artifacts" / "embeddings.parquet").unlink()
    assert will_run(finished)["embed"] == ("output artifacts/embeddings.parquet missing",)
    assert go(finished) == {"embed": "restored"}


def test_a_new_software_revision_reruns_its_stage(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = REVISIONS["evaluate"]
    monkeypatch.setitem(REVISIONS, "evaluate", now + 1)
    (row,) = why(finished)
    assert row.stage == "dvc.yaml" and row.will_run
    assert sync_pipeline(Layout(finished), load_params(finished / "params.yaml"))
    assert will_run(finished)["evaluate_base"] == (f"software revision {now} -> {now + 1}",)
    assert set(go(finished)) == {"evaluate_base", "evaluate@s1", "evaluate@s2"}
    assert not sync_pipeline(Layout(finished), load_params(finished / "params.yaml"))


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_a_path_without_a_shell_is_enough(workspace: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    (workspace / "params.yaml").write_text(new_text("demo", ["a"], EncoderParams(), {}))
    assert list(go(workspace)) == [*BASE_STAGES, "report"]


def test_the_drawn_line_needs_no_data(workspace: Path) -> None:
    (workspace / "params.yaml").write_text(new_text("demo", ["a"], EncoderParams(), {}))
    assert list(go(workspace)) == [*BASE_STAGES, "report"]
    assert (workspace / "artifacts" / "drawn").is_dir()


def test_a_refusal_is_the_only_thing_said(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (workspace / "fail").touch()
    with pytest.raises(SamifError, match="^class 'nut' is blurred; take it again$"):
        go(workspace)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["signal 15", "exit code 3"])
def test_how_a_stage_ended_is_told(workspace: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC gives the exit code in a sentence only: this fails where that becomes another one."""
    script = Path(sys.executable).with_name("samif")
    script.write_text("#!/bin/sh\n" + ("kill -15 $$\n" if ending.startswith("signal") else "exit 3\n"))
    with pytest.raises(SamifError, match=f"^stage 'dataset' ended without a result .{ending}.,"):
        go(workspace)


def test_ctrl_c_in_a_stage_interrupts_the_run(workspace: Path) -> None:
    (workspace / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        go(workspace)
    assert not (workspace / ".samif" / "failure").exists()


def test_death_and_a_broken_pipeline_are_told_in_one_sentence(workspace: Path, tmp_path: Path) -> None:
    (workspace / "die").touch()
    with pytest.raises(SamifError, match="^stage 'dataset' ended without a result .killed, possibly out of memory"):
        go(workspace)
    (workspace / "die").unlink()
    (tmp_path / "data" / "annotations.json").unlink()
    with pytest.raises(SamifError, match="annotations.json") as refusal:
        go(workspace)
    assert "\n" not in str(refusal.value)
    edit(workspace, "propose:\n", "proposed:\n")
    with pytest.raises(SamifError, match="key 'proposed': expected no such key"):
        why(workspace)


def test_a_section_that_is_left_out_is_named(workspace: Path) -> None:
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(re.sub(r"propose:\n(  .*\n)*", "", text))
    with pytest.raises(SamifError, match="propose"):
        go(workspace)


def test_the_environment_is_as_before(finished: Path) -> None:
    before, here = dict(os.environ), Path.cwd()
    go(finished)
    assert dict(os.environ) == before
    assert Path.cwd() == here


def test_a_failed_run_leaves_its_record(workspace: Path) -> None:
    assert last_run(workspace) is None
    (workspace / "fail").touch()
    with pytest.raises(SamifError, match="blurred"):
        run(workspace, request_of(workspace, "ann", "a new part"))
    record = last_run(workspace)
    assert record is not None
    assert (record["who"], record["why"], record["outcome"]) == ("ann", "a new part", "failed")
    assert record["error"] == "class 'nut' is blurred; take it again"
    assert record["reasons"][0] == {"stage": "dataset", "will_run": True, "reasons": ["never run"]}
    assert record["started"] < record["ended"]


def test_a_run_that_did_nothing_says_so(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pipeline.run._recompute_missing", lambda *_: False)
    monkeypatch.setattr("flows.registry.registration.register_all", lambda *_: {"decoder": 1})
    monkeypatch.setattr("flows.report.publish.publish", lambda *_: None)
    report = finished / "artifacts" / "report" / "r"
    changes: dict[str, Callable[[], object]] = {"nothing to do": report.exists, "nothing was computed": report.unlink}
    changes["stage"] = lambda: edit(finished, "max_detections: 100", "max_detections: 99")
    for words, change in changes.items():
        change()
        up_to_date = words != "stage"
        said: list[str] = []
        record = run(finished, request_of(finished, "ann"), said.append)
        assert record["up_to_date"] is up_to_date
        written = last_run(finished)
        assert written is not None and (written["id"], written["up_to_date"]) == (record["id"], up_to_date)
        assert said[-1].startswith(words) and bool(record["stages"]) is (words != "nothing to do")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RegistryUnavailable("the registry does not answer"), "key 'dataset'"),
        (SamifError("the registry does not know you"), "^the registry does not know you$"),
    ],
)
def test_only_a_registry_that_does_not_answer_is_asked_again_later(
    workspace: Path, error: SamifError, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else would end the run after hours of work, so it does at once."""

    def check(*_: object) -> None:
        raise error

    def first_stage(*_: object) -> None:
        raise SamifError("key 'dataset'")

    monkeypatch.setattr("flows.registry.ownership.check", check)
    monkeypatch.setattr("flows.pipeline.run.reproduce", first_stage)
    edit(workspace, "tracking_uri: null", "tracking_uri: http://registry.example:5000")
    with pytest.raises(SamifError, match=sentence):
        run(workspace, request_of(workspace, "ann"))


def test_what_dvc_logs_does_not_matter(workspace: Path) -> None:
    logging.disable(logging.CRITICAL)
    try:
        assert set(go(workspace).values()) == {"ran"}
        add_session(workspace, "s3", ["gear"], shots=9)
        go(workspace)
        remove_session(workspace, "s3")
        assert go(workspace) == {"report": "restored"}
    finally:
        logging.disable(logging.NOTSET)


def test_one_run_at_a_time(workspace: Path) -> None:
    with exclusive(workspace), pytest.raises(SamifError, match="another samif command is at work"):
        run(workspace, request_of(workspace, "ann"))
    assert last_run(workspace) is None


def test_a_failure_is_written_for_the_run_above_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAILURE_VARIABLE, raising=False)
    assert not write_failure(SamifError("no"))
    monkeypatch.setenv(FAILURE_VARIABLE, str(tmp_path / "f"))
    assert write_failure(SamifError("no"))
    assert (tmp_path / "f").read_text() == "no"


def test_the_demo_line_of_the_repository_is_up_to_date() -> None:
    root = Path(__file__).parents[3]
    params = load_params(root / "params.yaml")
    assert (root / "dvc.yaml").read_text(encoding="utf-8") == render_pipeline(params)
    assert params.line == "demo"
    sessions = params.sessions
    assert (root / "params.yaml").read_text(encoding="utf-8") == new_text(
        "demo", params.dataset.base_classes, EncoderParams(), sessions
    )


@pytest.mark.parametrize("place", ["a folder", "a bucket"])
def test_what_one_workspace_computed_another_restores_from_the_remote(
    workspace: Path, tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    """Another clone on another machine: nothing but the sources, the same remote."""
    url = f"s3://{request.getfixturevalue('bucket')}/dvc" if place == "a bucket" else str(tmp_path / "remote")
    name_remote(workspace, url)
    other = shutil.copytree(workspace, tmp_path / "other")
    assert set(go(workspace).values()) == {"ran"}
    assert set(go(other).values()) == {"restored"}
    assert (other / "artifacts" / "report" / "r").read_bytes() == (
        workspace / "artifacts" / "report" / "r"
    ).read_bytes()
    add_session(other, "s3", ["gear"], shots=9)
    assert go(other) == {"session@s3": "ran", "evaluate@s3": "ran", "report": "ran"}
    add_session(workspace, "s3", ["gear"], shots=9)
    assert set(go(workspace).values()) == {"restored"}


def test_a_bucket_that_comes_back_is_waited_for(workspace: Path, s3_server: Ceph, bucket: str) -> None:
    """At the start of a run, when it is asked what others have, and again before the results are sent."""
    name_remote(workspace, f"s3://{bucket}/dvc")
    said: list[str] = []

    def go_on() -> None:
        sync_pipeline(Layout(workspace), load_params(workspace / "params.yaml"))
        reproduce(workspace, said.append)

    (workspace / "hold").touch()
    with ThreadPoolExecutor(1) as pool:
        s3_server.kill("rgw")
        going = pool.submit(go_on)
        time.sleep(2.0)
        s3_server.start("rgw")
        s3_server.wait()
        while "stage report" not in said:
            time.sleep(0.05)
            assert not going.done()
        s3_server.kill("rgw")
        (workspace / "hold").unlink()
        time.sleep(2.0)
        s3_server.start("rgw")
        s3_server.wait()
        going.result(60)
    assert said[0] == "stage dataset" and said[-1].startswith("results are in DVC's remote")


def test_a_remote_that_is_away_costs_no_result(workspace: Path, tmp_path: Path) -> None:
    """A file lies where the remote's folder should be."""
    away = tmp_path / "remote"
    away.write_text("no folder")
    name_remote(workspace, str(away))
    with pytest.raises(SamifError, match="the results are here, but DVC's remote does not take them .*; repair"):
        go(workspace)
    assert (workspace / "artifacts" / "report" / "r").exists()
    away.unlink()
    assert go(workspace) == {}
    assert any(path.is_file() for path in away.rglob("*"))


def test_a_trouble_that_comes_from_another_is_passed_on() -> None:
    """Looking through what it came from must end, though each look hangs more behind it."""

    def fails() -> None:
        try:
            raise ValueError("the gear is blurred")
        except ValueError as cause:
            raise DvcException("failed to reproduce") from cause

    with pytest.raises(DvcException, match="failed to reproduce") as trouble:
        with_retry(Repo.__new__(Repo), fails)
    assert isinstance(trouble.value.__cause__, ValueError)
