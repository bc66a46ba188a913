"""The life of one small drawn line through the command line, told in order: run, grow, predict, shrink, mend.

Every stage is a process that imports torch, so the tests share one workspace; a chapter that changes it is a fixture
that stands on the chapter before, and records what its tests need.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from samif.config import DrawnParams, SessionParams
from samif.dataset.draw.line import draw_line
from samif.dataset.draw.parts import BASE_PARTS
from tests.support.console import SAMIF, Done, refusal, samif
from tests.support.drawn import drawn_workspace

STAGES = ["dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base", "report"]
SESSIONS = {
    "w1": SessionParams(after="base", classes=["star_knob"], shots=2),
    "w2": SessionParams(after="w1", classes=["wing_nut"], shots=2),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of the demo line, small, not yet run."""
    root = tmp_path_factory.mktemp("line")
    return drawn_workspace(root, SESSIONS, base_images=22, mixed_images=14, val_images=10)


@dataclass(frozen=True)
class Chapter:
    """What one `samif run` did, and the workspace after it."""

    run: dict[str, Any]
    summary: dict[str, Any]
    versions: list[dict[str, Any]]
    classifiers: dict[str, bytes]

    @property
    def stages(self) -> dict[str, str]:
        """Stage -> ran or restored."""
        return {stage["stage"]: stage["how"] for stage in self.run["stages"]}


def go(root: Path) -> Chapter:
    printed = samif(root, "run", "--json", "--who", "ada", "--why", "a test").json
    assert printed["run"] == json.loads(max((root / ".samif" / "runs").iterdir()).read_text())
    assert printed["summary"] == json.loads((root / "reports" / "summary.json").read_text())
    folder = root / "artifacts" / "classifiers"
    return Chapter(
        printed["run"],
        printed["summary"],
        samif(root, "registry", "list", "--json").json,
        {path.name: (path / "classifier.safetensors").read_bytes() for path in folder.iterdir()},
    )


def due(root: Path) -> dict[str, list[str]]:
    """What `samif why` says that a run would do: stage -> reasons."""
    return {row["stage"]: row["reasons"] for row in samif(root, "why", "--json").json["now"] if row["will_run"]}


@pytest.fixture(scope="module")
def first(root: Path) -> Chapter:
    return go(root)


def test_the_first_run_runs_every_stage_and_writes_the_summary(root: Path, first: Chapter) -> None:
    of_sessions = [f"{stage}@{name}" for stage in ("session", "evaluate") for name in SESSIONS]
    assert sorted(first.stages) == sorted([*STAGES, *of_sessions])
    assert set(first.stages.values()) == {"ran"}
    assert (first.run["outcome"], first.run["who"], first.run["why"]) == ("done", "ada", "a test")
    assert first.run["versions"] == {"decoder": 1, "classifiers": {"base": 1, "w1": 2, "w2": 3}}

    summary = first.summary
    assert (summary["schema"], summary["pretrain_classes"], summary["encoder"]["name"]) == (1, "base", "tiny")
    assert (summary["dataset"]["train_images"], summary["dataset"]["val_images"]) == (36, 10)
    assert len(summary["dataset"]["digest"]) == len(summary["encoder"]["digest"]) == 64
    assert summary["decoder"]["version"] == 1
    assert [(s["name"], s["classes"], s["shots"]) for s in summary["sessions"]] == [
        ("w1", ["star_knob"], 2),
        ("w2", ["wing_nut"], 2),
    ]
    keys = {"name", "classes", "shots", "classifier", "ap", "ap50", "per_class", "unknown", "names", "seconds"}
    for entry, known in zip((summary["base"], *summary["sessions"]), (12, 13, 14), strict=True):
        assert keys <= set(entry)
        assert set(entry["ap"]) == set(entry["ap50"]) == {"base", "novel", "all"}
        assert set(entry["unknown"]) == {"auroc", "unlabelled_false_positives_per_image"}
        assert len(entry["per_class"]) == known
        assert all({"ap", "ap50", "instances"} == set(scores) for scores in entry["per_class"].values())
        assert 0 <= entry["ap"]["all"] <= entry["ap50"]["all"] <= 100
    assert summary["base"]["ap"]["novel"] is None
    assert summary["sessions"][0]["ap"]["novel"] is not None
    assert "star_knob" in (root / "reports" / "index.html").read_text()


def test_every_version_stands_on_the_one_frozen_decoder(root: Path, first: Chapter) -> None:
    assert [(v["version"], v["session"], v["classes"]) for v in first.versions] == [
        (1, "base", 12),
        (2, "w1", 13),
        (3, "w2", 14),
    ]
    assert [v["aliases"] for v in first.versions] == [[], [], ["challenger"]]
    shown = [samif(root, "registry", "show", ref, "--json").json for ref in ("demo/1", "demo@challenger")]
    assert [details["card"]["name"] for details in shown] == ["base", "w2"]
    assert {details["card"]["decoder"]["sha256"] for details in shown} == {first.summary["decoder"]["sha256"]}
    assert {v["decoder_version"] for v in first.versions} == {1}


def test_old_rows_are_bit_identical(root: Path, first: Chapter) -> None:
    names = ("base", "w1", "w2")
    base, w1, w2 = (load_file(root / "artifacts" / "classifiers" / n / "classifier.safetensors") for n in names)
    assert base.keys() == w1.keys() == w2.keys()
    grown = {key for key in base if base[key].shape != w2[key].shape}
    assert grown, "no tensor has a row per class"
    for before, after, rows in ((base, w1, 12), (w1, w2, 13)):
        for key, old in before.items():
            new = after[key]
            if key in grown:
                assert (len(old), len(new)) == (rows, rows + 1)
                new = new[:rows]
            assert old.tobytes() == new.tobytes(), key


def test_a_second_run_has_nothing_to_do(root: Path, first: Chapter) -> None:
    again = go(root)
    assert again.stages == {}
    assert again.versions == first.versions
    assert again.classifiers == first.classifiers
    assert again.summary == first.summary
    assert due(root) == {}


def test_the_schedule_does_a_run_of_its_own(root: Path, first: Chapter) -> None:
    """The command of the systemd service, as systemd would start it."""
    unit = (Path(__file__).parents[2] / "infra" / "triggers" / "samif-run@.service").read_text()
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    path = {"PATH": f"{SAMIF.parent}{os.pathsep}{os.defpath}"}
    subprocess.run(shlex.split(command), cwd=root, env=os.environ | path, check=True, capture_output=True, timeout=900)
    record = json.loads(max((root / ".samif" / "runs").iterdir()).read_text())
    assert (record["who"], record["why"], record["outcome"]) == ("schedule", "nightly", "done")
    assert record["stages"] == [] and record["versions"] == first.run["versions"]


@pytest.fixture(scope="module")
def third(root: Path, first: Chapter) -> tuple[dict[str, list[str]], Chapter]:
    """One session more, from the training images: what `why` foretold, and what the run did."""
    added = samif(root, "session", "add", "w3=t_pipe", "--shots", "2")
    assert added.code == 0, added.err
    return due(root), go(root)


def test_a_session_more_runs_itself_its_evaluation_and_the_report(
    root: Path, first: Chapter, third: tuple[dict[str, list[str]], Chapter]
) -> None:
    foretold, grown = third
    assert set(foretold) == {"session@w3", "evaluate@w3", "report"}
    assert grown.stages == dict.fromkeys(foretold, "ran")
    assert foretold["session@w3"] == ["new stage"]
    assert [v["session"] for v in grown.versions] == ["base", "w1", "w2", "w3"]
    assert grown.run["versions"] == {"decoder": 1, "classifiers": {"base": 1, "w1": 2, "w2": 3, "w3": 4}}
    assert {name: grown.classifiers[name] for name in first.classifiers} == first.classifiers
    assert grown.summary["decoder"] == first.summary["decoder"]


@dataclass(frozen=True)
class Own:
    """A session with images of its own: the run that met changed images, then one that met the right ones."""

    annotations: Path
    refused: Done
    left: list[str]
    chapter: Chapter


@pytest.fixture(scope="module")
def own(root: Path, third: tuple[dict[str, list[str]], Chapter], tmp_path_factory: pytest.TempPathFactory) -> Own:
    drawn = tmp_path_factory.mktemp("own")
    draw_line(drawn, DrawnParams(seed=5, base_images=1, mixed_images=9, val_images=1, size=192))
    images, annotations = drawn / "train" / "images", drawn / "train" / "annotations.json"
    added = samif(root, "session", "add", "w4=hook", "--shots", "2", "--images", images, "--annotations", annotations)
    assert added.code == 0, added.err
    before = (images / "scene_0003.jpg").read_bytes()
    shutil.copyfile(images / "scene_0004.jpg", images / "scene_0003.jpg")
    refused = samif(root, "run")
    left = sorted(path.name for path in (root / "artifacts" / "classifiers").iterdir())
    (images / "scene_0003.jpg").write_bytes(before)
    return Own(annotations, refused, left, go(root))


def test_changed_images_of_a_session_are_refused_and_nothing_is_left(own: Own) -> None:
    refusal(own.refused, own.annotations, "changed since the session was added", "add it again to take the new labels")
    assert own.left == ["base", "w1", "w2", "w3"]


def test_a_session_with_images_of_its_own_runs_nothing_else(
    own: Own, third: tuple[dict[str, list[str]], Chapter]
) -> None:
    assert own.chapter.stages == dict.fromkeys(["session@w4", "evaluate@w4", "report"], "ran")
    assert own.chapter.summary["dataset"] == third[1].summary["dataset"]
    assert [v["session"] for v in own.chapter.versions] == ["base", "w1", "w2", "w3", "w4"]
    assert own.chapter.summary["sessions"][-1]["classes"] == ["hook"]


@pytest.fixture(scope="module")
def predict(root: Path, own: Own) -> Callable[[str, str], dict[str, Any]]:
    """`samif predict` of two images into a folder; instances.json."""

    def run(model: str, out: str) -> dict[str, Any]:
        images = [root / "artifacts" / "drawn" / "val" / "images" / f"scene_000{i}.jpg" for i in (6, 8)]
        done = samif(root, "predict", "--model", model, "--out", out, "--score", "0.05", "--json", *images)
        assert done.json["images"] == 2
        expected = ["instances.json", "results.json", "scene_0006.overlay.jpg", "scene_0008.overlay.jpg"]
        assert sorted(path.name for path in (root / out).iterdir()) == expected
        instances: dict[str, Any] = json.loads((root / out / "instances.json").read_text())
        return instances

    return run


def test_a_version_and_its_folder_predict_the_same(root: Path, predict: Callable[[str, str], dict[str, Any]]) -> None:
    registered = predict("demo-classifier@challenger", "predicted/challenger")
    predict("artifacts/classifiers/w4", "predicted/w4")
    results = [(root / "predicted" / name / "results.json").read_bytes() for name in ("challenger", "w4")]
    assert results[0] == results[1]
    assert [image["file_name"] for image in registered["images"]] == ["scene_0006.jpg", "scene_0008.jpg"]
    assert [c["name"] for c in registered["categories"]][-5:] == ["star_knob", "wing_nut", "t_pipe", "hook", "unknown"]
    assert registered["annotations"]

    earlier = predict("artifacts/classifiers/w1", "predicted/w1")
    assert [c["name"] for c in earlier["categories"]] == [*BASE_PARTS, "star_knob", "unknown"]


def test_a_broken_image_and_an_unknown_version_are_refused_before_anything_is_predicted(root: Path, own: Own) -> None:
    good = root / "artifacts" / "drawn" / "val" / "images" / "scene_0006.jpg"
    broken = root.parent / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:-500])
    done = samif(root, "predict", "--model", "artifacts/classifiers/w1", "--out", "never", good, broken)
    refusal(done, broken, "cannot be decoded", "copy it again")
    unknown = samif(root, "predict", "--model", "demo-classifier/99", "--out", "never", good)
    refusal(unknown, "demo-classifier", "99")
    assert not (root / "never").exists()


def test_taking_the_last_session_out_leaves_the_one_before_as_it_was(
    root: Path, own: Own, third: tuple[dict[str, list[str]], Chapter]
) -> None:
    refusal(samif(root, "session", "remove", "w3"), "session 'w3' cannot go", "remove 'w4' first")
    removed = samif(root, "session", "remove", "w4")
    assert removed.code == 0, removed.err
    shrunk = go(root)
    assert set(shrunk.stages) == {"report"}
    assert shrunk.classifiers == third[1].classifiers
    assert [v["session"] for v in shrunk.versions] == ["base", "w1", "w2", "w3", "w4"]
    assert shrunk.summary["sessions"] == third[1].summary["sessions"]
    assert not (root / "artifacts" / "evaluations" / "w4").exists()


def test_a_damaged_store_is_repaired_and_the_run_says_so(root: Path, first: Chapter) -> None:
    files = {path: path.read_bytes() for path in (root / ".samif" / "embeddings").rglob("*") if path.is_file()}
    shard = max(files, key=lambda path: len(files[path]))
    shard.unlink()
    repaired = samif(root, "run")
    assert repaired.code == 0, repaired.err
    assert "the embedding store lacks 46 images that it had; computing them again" in repaired.out
    assert "every stage is up to date" in repaired.out and "nothing to do" not in repaired.out
    assert {path: path.read_bytes() for path in files} == files
