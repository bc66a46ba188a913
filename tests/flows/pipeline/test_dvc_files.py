"""What DVC's own commands find in a workspace: how stages start, metrics, plots, and copies for experiments."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.loaders.inputs import store_of
from flows.pipeline.explain import why
from flows.report.collect import collect
from flows.report.dvc_metrics import classifier_metrics, write_metrics
from flows.report.dvc_plots import MOST_OBJECTS, confusion_rows
from flows.workspace.dvc_config import use_git
from flows.workspace.dvc_yaml import launcher_text, render_pipeline, sync_pipeline
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.evaluate.model import Confusion, Evaluation
from tests.support.drawn import drawn_workspace
from tests.support.report_workspace import build

SAYS = '#!/bin/sh\necho "{} $*"\n'
BARE = "/usr/bin:/bin"


def dvc(root: Path, *words: str, **environment: str) -> Any:
    """What a command of dvc prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words, "--json"], cwd=root, capture_output=True, text=True,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    path = tmp_path / "ws" / ".dvc" / "samif"
    path.parent.mkdir(parents=True)
    path.write_text(launcher_text())
    return path


def installed(folder: Path, says: str) -> Path:
    """A folder of programs with a `samif` that says who it is, and a python."""
    folder.mkdir(parents=True)
    (folder / "samif").write_text(SAYS.format(says))
    (folder / "samif").chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    return folder


def start(launcher: Path, program: list[str], path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program, f"sh {launcher} stage embed --revision 3"], capture_output=True, text=True, env={"PATH": path}
    )


SHELL_OUT = "import subprocess, sys; sys.exit(subprocess.run(['/bin/sh', '-c', sys.argv[1]]).returncode)"


def test_samif_on_path_is_taken(launcher: Path, tmp_path: Path) -> None:
    on_path, beside = installed(tmp_path / "on path", "first"), installed(tmp_path / "venv" / "bin", "second")
    done = start(launcher, [str(beside / "python"), "-S", "-c", SHELL_OUT], f"{on_path}:{BARE}")
    assert (done.returncode, done.stdout) == (0, "first stage embed --revision 3\n")


@pytest.mark.parametrize("shell", ["import os; os.environ['X'] = '1'; ", ""])
def test_an_environment_need_not_be_activated(launcher: Path, tmp_path: Path, shell: str) -> None:
    """Only the path of the python that runs dvc leads to it, as for `.venv/bin/dvc repro`."""
    beside = installed(tmp_path / "venv with a blank" / "bin", "mine")
    done = start(launcher, [str(beside / "python"), "-S", "-c", shell + SHELL_OUT], BARE)
    assert (done.returncode, done.stdout) == (0, "mine stage embed --revision 3\n")


def test_a_stage_s_exit_code_passes_through(launcher: Path, tmp_path: Path) -> None:
    beside = installed(tmp_path / "bin", "mine")
    (beside / "samif").write_text("#!/bin/sh\nexit 7\n")
    assert start(launcher, [str(beside / "python"), "-S", "-c", SHELL_OUT], BARE).returncode == 7


def test_without_samif_one_sentence_says_so(launcher: Path, tmp_path: Path) -> None:
    """As a child of the system's first process: beside the programs above it there is no samif."""
    said = tmp_path / "said"
    orphan = f"(sleep 0.3; sh {launcher} stage embed; echo $? >&2; mv {said}.part {said}) 2>{said}.part &"
    subprocess.run(["/bin/sh", "-c", orphan], env={"PATH": BARE}, check=True)
    deadline = time.monotonic() + 30
    while not said.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sentence, code, end = said.read_text().split("\n")
    assert "activate the environment" in sentence and (code, end) == ("127", "")


def test_dvc_repro_by_hand_off_path(tmp_path: Path) -> None:
    """The real dvc, in an environment that is not activated, with PATH and SHELL of somebody else."""
    root = drawn_workspace(tmp_path, {}, base_images=2, mixed_images=1, val_images=1)
    sync_pipeline(Layout(root), load_params(root / "params.yaml"))
    beside = installed(tmp_path / "venv" / "bin", "stage by")
    outs = "dataset/train.parquet dataset/val.parquet quarantine/dataset.json"
    with (beside / "samif").open("a") as script:
        script.write(f"cd artifacts && mkdir drawn dataset quarantine && touch {outs}\n")
    (root / "artifacts").mkdir()
    environment = {"PATH": BARE, "PYTHONPATH": os.pathsep.join(site.getsitepackages()), "HOME": str(tmp_path)}
    done = subprocess.run(
        [str(beside / "python"), "-m", "dvc", "repro", "dataset"], cwd=root, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stage by stage dataset --revision" in done.stdout
    assert "sh .dvc/samif stage dataset" in (root / "dvc.lock").read_text()


def test_a_lock_of_an_earlier_release_runs_nothing_again_for_its_commands(tmp_path: Path) -> None:
    root = drawn_workspace(tmp_path, {}, base_images=2, mixed_images=1, val_images=1)
    layout, params = Layout(root), load_params(root / "params.yaml")
    stage = {"cmd": "samif stage dataset --revision 4", "outs": []}
    layout.lock.write_text("schema: '2.0'\nstages:\n  dataset:\n    cmd: " + stage["cmd"] + "\n")
    layout.pipeline.write_text(render_pipeline(params).replace("sh .dvc/samif stage", "samif stage"))
    assert sync_pipeline(layout, params)
    assert "    cmd: sh .dvc/samif stage dataset --revision 4\n" in layout.lock.read_text()
    assert "command changed" not in {reason for row in why(root) for reason in row.reasons}
    before = layout.lock.read_bytes()
    assert not sync_pipeline(layout, params) and layout.lock.read_bytes() == before


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Params]:
    """A workspace whose report stage has run, with git and two commits: the second has another evaluation."""
    layout, params = build(tmp_path_factory.mktemp("line"))
    drawn = drawn_workspace(tmp_path_factory.mktemp("settings"), {}, base_images=2, mixed_images=1, val_images=1)
    shutil.copytree(drawn, layout.root, dirs_exist_ok=True)
    raw = (
        (layout.root / "params.yaml")
        .read_text()
        .replace("sessions: {}", "sessions: {s1: {after: base, classes: [a]}, s2: {after: s1, classes: [b]}}")
    )
    layout.params.write_text(raw)
    layout.pipeline.write_text(render_pipeline(load_params(layout.params)))
    for name in ("base", "s1", "s2"):
        evaluation = Evaluation.load(layout.evaluation(name) / "evaluation.json")
        write_metrics(layout.metrics(name), classifier_metrics(evaluation))
    collect(layout, params)
    return layout, params


def test_metrics_are_few_and_named(reported: tuple[Layout, Params]) -> None:
    found = dvc(reported[0].root, "metrics", "show")[""]["data"]
    assert set(found) == {"artifacts/metrics.json", *(f"artifacts/metrics/{n}.json" for n in ("base", "s1", "s2"))}
    of_last = found["artifacts/metrics/s2.json"]["data"]
    assert set(of_last) <= {"AP", "AP50", "unknown_auroc", "named_percent", "false_names_per_1000_images"}
    evaluation = Evaluation.load(reported[0].evaluation("s2") / "evaluation.json")
    assert of_last["AP"]["all"] == pytest.approx(evaluation.ap.all, abs=1e-4)
    summary = found["artifacts/metrics.json"]["data"]
    assert of_last.items() <= summary.items()
    assert summary["classes"] == len(evaluation.per_class) and summary["decoder_iou"] == 0.861
    base = Evaluation.load(reported[0].evaluation("base") / "evaluation.json")
    assert evaluation.base_only.ap is not None and base.base_only.ap is not None
    assert summary["base_AP_change"] == pytest.approx(evaluation.base_only.ap - base.base_only.ap, abs=1e-4)


def test_every_plot_is_drawn(reported: tuple[Layout, Params], tmp_path: Path) -> None:
    plots = dvc(reported[0].root, "plots", "show", "--out", str(tmp_path))["data"]
    images = {name for name in plots if "/images/" in name}
    assert set(plots) - images == {
        "AP over sessions",
        "Named objects over false names",
        "AP per class",
        "Confusion",
        "Loss of decoder finetuning",
        "Mask IoU of decoder finetuning",
    }
    shown = {path.name for path in (reported[0].plots / "images").iterdir()}
    assert {Path(name).name for name in images} == shown and shown
    for name in set(plots) - images:
        (plot,) = plots[name]
        assert plot["type"] == "vega" and plot["revisions"] == ["workspace"], plot
        content = plot["content"]
        spec = json.loads(content) if isinstance(content, str) else content
        rows = spec["data"]["values"]
        assert rows, name


def test_the_confusion_plot_counts_objects() -> None:
    few = confusion_rows(Confusion(labels=["a", "background"], matrix=[[3, 1], [2, 0]]))
    assert [(row["actual"], row["predicted"]) for row in few] == [("a", "a")] * 3 + [("a", "background")] + [
        ("background", "a")
    ] * 2
    many = confusion_rows(Confusion(labels=["a", "background"], matrix=[[10 * MOST_OBJECTS, 1], [0, 0]]))
    assert len(many) <= MOST_OBJECTS + 1 and many[-1] == {"actual": "a", "predicted": "background"}
    assert confusion_rows(Confusion(labels=["background"], matrix=[[0]]))


@pytest.mark.parametrize("copy", [".dvc/tmp/exps/standalone/tmpab12", ".dvc/tmp/exps/tmpcd/inner/ws", ""])
def test_a_copy_for_an_experiment_uses_the_store_of_its_workspace(tmp_path: Path, copy: str) -> None:
    root = drawn_workspace(tmp_path, {}, base_images=2, mixed_images=1, val_images=1)
    where = root / copy
    where.mkdir(parents=True, exist_ok=True)
    params = load_params(root / "params.yaml")
    assert store_of(Layout(where), params).location == str(root / ".samif" / "embeddings")
    other = tmp_path / "elsewhere" / ".dvc" / "tmp" / "exps" / "x"
    assert Layout(other).origin == other  # below no workspace


def test_a_workspace_that_became_a_git_repository_is_set_up_for_experiments(tmp_path: Path) -> None:
    root = drawn_workspace(tmp_path, {}, base_images=2, mixed_images=1, val_images=1)
    assert not use_git(Layout(root))
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    (root / ".gitignore").write_text("/dvc.lock\n")
    assert not use_git(Layout(root))
    (root / ".gitignore").write_text("/artifacts\n")
    assert use_git(Layout(root)) and not use_git(Layout(root))
    assert "no_scm = True" in (root / ".dvc" / "config").read_text()
    assert "no_scm = False" in (root / ".dvc" / "config.local").read_text()
