"""DVC's own commands on a line whose stages really run: repro by hand, experiments, metrics and plots of two states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.workspace.dvc_yaml import sync_pipeline
from flows.workspace.layout import Layout
from tests.support.small_line import write_small

pytestmark = pytest.mark.slow

DVC = Path(sys.executable).with_name("dvc")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "DVC_NO_ANALYTICS": "1",
}


ACTIVATED = ENVIRONMENT | {"PATH": f"{DVC.parent}:{ENVIRONMENT['PATH']}"}
"""DVC starts the workers of its queue as `dvc` from PATH."""


def run(root: Path, *words: str, environment: dict[str, str] = ENVIRONMENT) -> str:
    """A command, by default without an activated environment."""
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(root: Path, *words: str) -> str:
    return run(root, str(DVC), *words)


def read(root: Path, *words: str) -> Any:
    return json.loads(dvc(root, *words, "--json"))


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", "--all")
    run(root, "git", "-c", "user.name=ann", "-c", "user.email=ann@example.com", "commit", "--quiet", "-m", message)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in git that `dvc repro` has finished and a commit holds."""
    sessions = {"week1": {"after": "base", "classes": ["hook"], "shots": 2}}
    small = write_small(tmp_path_factory.mktemp("line"), sessions=sessions, embed={"workers": 1})
    root = small.layout.root
    run(root, "git", "init", "--quiet")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = False\n    check_update = False\n")
    (root / ".dvcignore").write_text("/.samif\n/reports\n")
    (root / ".gitignore").write_text("/artifacts/\n/reports/\n/.samif/\n/.dvc/cache/\n/.dvc/tmp/\n/.dvc/config.local\n")
    sync_pipeline(Layout(root), small.params)
    said = dvc(root, "repro")
    assert "Running stage 'report'" in said
    commit(root, "a run")
    yield root
    subprocess.run([DVC, "queue", "stop", "--kill"], cwd=root, env=ENVIRONMENT, capture_output=True)


def test_a_second_repro_has_nothing_to_do(line: Path) -> None:
    assert "Running stage" not in dvc(line, "repro")


def test_metrics_and_plots_of_a_run(line: Path, tmp_path: Path) -> None:
    found = read(line, "metrics", "show")[""]["data"]
    assert set(found) == {f"artifacts/{name}.json" for name in ("metrics", "metrics/base", "metrics/week1")}
    assert {"AP", "AP50"} <= set(found["artifacts/metrics/week1.json"]["data"])
    table = dvc(line, "metrics", "show")
    assert "AP.all" in table and "artifacts/metrics/week1.json" in table
    page = dvc(line, "plots", "show", "--out", str(tmp_path)).strip()
    assert (tmp_path / "index.html").is_file() and page.endswith("index.html")


def test_an_experiment_is_compared(line: Path, tmp_path: Path) -> None:
    said = dvc(line, "exp", "run", "--name", "cosine", "-S", "train_base.head=cosine")
    assert "Running stage 'train_base'" in said and "Running stage 'pretrain_decoder'" not in said
    changed = read(line, "params", "diff")["params.yaml"]
    assert changed == {"train_base.head": {"old": "lda", "new": "cosine"}} | changed
    metrics = read(line, "metrics", "diff", "--all")
    assert "AP.all" in metrics["artifacts/metrics.json"]
    assert metrics["artifacts/metrics/base.json"]["AP.base"].keys() >= {"old", "new"}
    plots = read(line, "plots", "diff", "HEAD", "--out", str(tmp_path))["data"]
    assert {plot["revisions"][0] for plot in plots["AP over sessions"]} or plots["AP over sessions"]
    (baseline, *_) = [entry for entry in read(line, "exp", "show") if entry["rev"] != "workspace"]
    names = {row["name"] for experiment in baseline["experiments"] for row in experiment["revs"]}
    assert names == {"cosine"}
    data = baseline["data"]["metrics"]["artifacts/metrics.json"]["data"]
    assert data["classes"] == 3
    table = dvc(line, "exp", "show", "--only-changed")
    assert "cosine" in table
    run(line, "git", "checkout", "--quiet", "--", ".")
    dvc(line, "checkout")


@pytest.mark.parametrize("how", ["--temp", "--queue"])
def test_copies_of_the_workspace_read_its_embeddings(line: Path, how: str) -> None:
    """`propose` reads the store, which the copy does not have."""
    store = line / ".samif" / "embeddings"
    before = sorted(store.rglob("*"))
    name, points = how.strip("-"), {"--temp": 9, "--queue": 10}[how]
    dvc(line, "exp", "run", how, "--name", name, "-S", f"propose.points={points}")
    if how == "--queue":
        assert name in dvc(line, "queue", "status")
        run(line, str(DVC), "exp", "run", "--run-all", environment=ACTIVATED)
    shown = next(entry for entry in read(line, "exp", "show") if entry["rev"] != "workspace")
    (made,) = [row for exp in shown["experiments"] for row in exp["revs"] if row["name"] == name]
    assert made["data"]["metrics"]["artifacts/metrics.json"]["data"]["classes"] == 3
    assert made["data"]["params"]["params.yaml"]["data"]["propose"]["points"] == points
    assert sorted(store.rglob("*")) == before
