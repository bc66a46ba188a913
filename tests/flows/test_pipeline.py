"""The graph on real DVC: `samif` is a script that writes a stage's outputs, so that only the graph is under test."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from flows import pipeline
from flows.layout import Layout
from flows.params_text import new_text
from flows.pipeline import FAILURE_VARIABLE, leave_sentence, prune, render_pipeline, reproduce, sync_pipeline
from flows.run import last_run, run
from flows.why import why
from flows.workspace import add_session, exclusive, init_workspace, remove_session
from samif.config import EncoderParams, load_params
from samif.errors import SamifError
from tests.flows.test_workspace import coco

STUB = f"""#!{sys.executable} -IS
import hashlib, os, pathlib, signal, sys
words = [w for w in sys.argv[1:sys.argv.index("--revision")]]
assert words.pop(0) == "stage", words
stage, name = words[0], words[-1]
pathlib.Path("fail").exists() and (
    pathlib.Path(os.environ["{FAILURE_VARIABLE}"]).write_text("class 'nut' is blurred; take it again"), sys.exit(1))
pathlib.Path("die").exists() and os.kill(os.getpid(), signal.SIGKILL)
outs = {{"dataset": ["dataset/train.json", "dataset/val.json"], "embed": ["embeddings.json"],
        "pretrain_decoder": ["decoder/d"], "propose": ["proposals/train.parquet", "proposals/val.parquet"],
        "train_base": ["classifiers/base/c"], "session": [f"classifiers/{{name}}/c"],
        "evaluate_base": ["evaluations/base/e"], "evaluate": [f"evaluations/{{name}}/e"], "report": ["report/r"]}}[stage]
if stage == "dataset" and "drawn:" in pathlib.Path("params.yaml").read_text():
    outs.append("drawn/p")
digest = hashlib.sha256(pathlib.Path("params.yaml").read_bytes()).hexdigest()
for out in outs:
    path = pathlib.Path("artifacts", out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{{out}} {{digest}}")
"""
"""Every run of a stage under other params gives another result, so nothing is spared by chance."""

BASE_STAGES = ["dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with sessions s1 (hook) and s2 (nut), not yet run; stages are the script above."""
    stub = tmp_path / "bin" / "samif"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    # Stages run with the `samif` that lies beside the interpreter.
    monkeypatch.setattr(sys, "executable", str(stub.with_name("python")))
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"]), ("s2", ["nut"])], shots=5)
    return root


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


def will_run(root: Path) -> dict[str, tuple[str, ...]]:
    return {row.stage: row.reasons for row in why(root) if row.will_run}


def test_first_run_then_nothing_then_one_session_more(workspace: Path, tmp_path: Path) -> None:
    assert set(will_run(workspace).values()) >= {("never run",)}
    assert [*go(workspace)][:4] == BASE_STAGES[:4]
    assert will_run(workspace) == {}
    outcome = reproduce(workspace)
    assert outcome.stages == ()
    assert outcome.seconds < 5

    # A class labelled since then changes the annotation file, so the dataset stage has to look again ...
    coco(tmp_path / "data", {"bolt": 12, "nut": 10, "gear": 9, "hook": 30, "clip": 9})
    assert will_run(workspace)["dataset"] == (f"dependency {tmp_path}/data/annotations.json changed",)
    go(workspace)
    # ... and then only the new session runs, with its evaluation and the report.
    add_source = tmp_path / "ws" / "artifacts" / "dataset" / "train.json"
    add_source.unlink()
    coco(tmp_path / "index", {"clip": 9})
    os.link(tmp_path / "index" / "annotations.json", add_source)
    add_session(workspace, "s3", ["clip"], shots=5)
    add_source.unlink()
    assert go(workspace) == {
        "dataset": "restored",
        "session@s3": "ran",
        "evaluate@s3": "ran",
        "report": "ran",
    } or pytest.fail("unexpected")
