"""Workspaces of the COCO2014 protocol, on a directory of the same layout."""

from __future__ import annotations

import json
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.loaders.inputs import index_of
from flows.pipeline.reproduce import dvc_environment
from flows.report.collect import collect
from flows.report.publish import publish, session_table
from flows.stages import run_stage
from flows.workspace.init_coco2014 import init_coco2014
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.dataset.coco2014 import BASE, CATEGORIES, NOVEL
from samif.errors import SamifError
from tests.support.coco2014_copy import TEST, TRAIN, VAL, Copy, counts
from tests.support.console import samif
from tests.support.report_workspace import build


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "coco")


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if ".dvc" not in path.parts}


def test_a_part_of_coco2014_says_so_everywhere(tmp_path: Path, copy: Copy) -> None:
    copy.image("train2014", 308).unlink()
    done = samif(tmp_path, "init-coco2014", "ws", "coco", "--partial", "--shots", "3")
    assert done.code == 0 and [line.partition(": ")[0] for line in done.err.splitlines()] == ["train", "val"]
    assert done.err.count("classes have no instance (74 in all)") == 2
    said = done.out.splitlines()
    assert said[0] == "workspace ws: 10 training and 3 test images, 3 base and 3 novel classes"
    assert said[1] == "a part of COCO2014: NOT the published protocol, no match for published numbers"
    assert said[2] == "1 listed images are not there and were left out"
    assert said[3].startswith("too few objects, left out: traffic light, fire hydrant, ")
    assert said[-1] == "next: cd ws && samif run"

    root = tmp_path / "ws"
    params = load_params(root / "params.yaml")
    assert params.dataset.protocol == "part-of-coco2014"
    assert "protocol: part-of-coco2014 # a part of COCO2014: NOT the published protocol" in " ".join(
        (root / "params.yaml").read_text().split()
    )
    assert params.dataset.base_classes == ["truck", "bench", "toothbrush"]
    assert [(n, s.classes, s.shots) for n, s in params.sessions.items()] == [
        ("voc", ["person", "dining table", "tv"], 3)
    ]
    record = json.loads((root / "coco2014" / "protocol.json").read_text())
    assert (record["published"], record["images_not_there"]) == (False, 1)
    assert record["train"] == {"images": 10, "labels": 60}
    assert set(record["classes_left_out"]) == (set(BASE) | set(NOVEL)) - {
        *params.dataset.base_classes,
        *params.sessions["voc"].classes,
    }
    assert not list(root.rglob("*.jpg"))


def test_dvc_runs_the_dataset_stage_on_the_common_folder(tmp_path: Path, copy: Copy) -> None:
    """Training and validation share their image folder, and DVC takes one dependency twice ill."""
    made = init_coco2014(tmp_path / "ws", copy.root, partial=True, shots=3)
    with dvc_environment(tmp_path / "ws"):
        from dvc.repo import Repo

        with closing(Repo(".")) as repo:
            repo.reproduce("dataset")
    layout = Layout(tmp_path / "ws")
    train, val = (index_of(layout, made.params, split) for split in ("train", "val"))
    assert {p.id for p in val.images} == set(TEST)
    assert {p.id for p in train.images} == set(TRAIN + VAL) - set(TEST)
    assert all(train.path_of(p).is_file() for p in train.images)


def test_the_whole_is_the_protocol_and_the_stage_holds_the_data_against_it(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "coco", tuple(CATEGORIES))
    made = init_coco2014(tmp_path / "ws", copy.root, published=counts(80))
    params = made.params
    assert params.dataset.protocol == "coco2014-60-20"
    assert params.dataset.base_classes == list(BASE)
    assert [(n, s.classes, s.shots) for n, s in params.sessions.items()] == [("voc", list(NOVEL), 10)]
    for source in (params.dataset.train, params.dataset.val):
        assert source is not None and source.images == str(copy.root)
    layout = Layout(tmp_path / "ws")
    with pytest.raises(SamifError, match="11 training images instead of 118,287; .*set 'protocol: part-of-coco2014'"):
        run_stage("dataset", None, layout, params)
    assert not layout.index("train").exists()


def test_the_published_protocol_leaves_no_image_out(tmp_path: Path, copy: Copy) -> None:
    content: dict[str, Any] = init_coco2014(tmp_path / "ws", copy.root, partial=True, shots=3).params.model_dump()
    content["dataset"] |= {"protocol": "coco2014-60-20", "broken_images": "quarantine"}
    with pytest.raises(ValueError, match="'broken_images' must be refuse"):
        Params.model_validate(content)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "3 test images, COCO2014 has 5,000"),
        (["--partial", "--val-ids", "nowhere"], "cannot read nowhere"),
        (["--partial", "--encoder", "vit_x"], "the encoder 'vit_x' does not fit"),
    ],
)
def test_a_refusal_leaves_nothing_behind(tmp_path: Path, copy: Copy, words: list[str], sentence: str) -> None:
    done = samif(tmp_path, "init-coco2014", "deep/ws", "coco", *words)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("samif: ") and done.err.count("\n") == 1 and sentence in done.err
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("place", ["coco", "coco/ws", "coco/annotations/deep/ws"])
def test_a_workspace_among_the_images_is_refused(tmp_path: Path, copy: Copy, place: str) -> None:
    before = tree(copy.root)
    with pytest.raises(SamifError, match="would lie in one folder; make the workspace elsewhere"):
        init_coco2014(tmp_path / place, copy.root, partial=True, shots=3)
    assert tree(copy.root) == before


def test_images_where_the_workspace_would_write_are_refused_and_stay(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "ws" / "coco2014")
    before = tree(tmp_path)
    with pytest.raises(SamifError, match="would lie in one folder; make the workspace elsewhere"):
        init_coco2014(tmp_path / "ws", copy.root, partial=True, shots=3)
    assert tree(tmp_path) == before


def test_a_part_without_base_objects_is_refused(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "coco", (1, 2, 3))
    with pytest.raises(SamifError, match="has no object of a base class to learn from"):
        init_coco2014(tmp_path / "ws", copy.root, partial=True, shots=3)
    assert not (tmp_path / "ws").exists()


def test_what_else_lies_in_the_folder_stays(tmp_path: Path, copy: Copy) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "notes.txt").write_text("mine")
    (root / "coco2014").mkdir()
    (root / "coco2014" / "more.txt").write_text("mine")
    with pytest.raises(SamifError, match="the encoder 'vit_x' does not fit"):
        init_coco2014(root, copy.root, partial=True, encoder="vit_x")
    assert tree(root) == {"notes.txt", "coco2014", "coco2014/more.txt"}
    init_coco2014(root, copy.root, partial=True, shots=3)
    before = tree(root)
    assert {"notes.txt", "params.yaml", "coco2014/train.json", "coco2014/val.json"} <= before
    with pytest.raises(SamifError, match=r"already has a params\.yaml"):
        init_coco2014(root, copy.root, partial=True, shots=3)
    assert tree(root) == before


def test_a_part_says_so_on_the_report_and_in_the_terminal(tmp_path: Path) -> None:
    layout, params = build(tmp_path / "line", images=2)
    dataset = params.dataset.model_copy(update={"protocol": "part-of-coco2014"})
    collect(layout, params.model_copy(update={"dataset": dataset}))
    page = publish(layout, {"decoder": None, "classifiers": {}}).read_text()
    claim = "a part of COCO2014: NOT the published protocol, no match for published numbers"
    assert page.count(claim) == 1
    summary = json.loads((layout.reports / "summary.json").read_text())
    assert summary["dataset"]["protocol"] == "part-of-coco2014"
    out = StringIO()
    Console(file=out, width=80).print(session_table(summary))
    assert claim in " ".join(out.getvalue().split())
