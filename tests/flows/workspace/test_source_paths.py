"""Paths of images in params.yaml: relative inside the workspace, true from any directory and in every clone."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.cli.data  # noqa: F401  (registers its command)
from flows.cli.app import app
from flows.pipeline.explain import why
from flows.pipeline.run import run
from flows.workspace.edit import add_background, add_session
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from flows.workspace.run_request import request_of
from flows.workspace.source_paths import check_sources, source_at, written
from samif.config import CocoSource, Params, load_params
from samif.errors import ConfigError, ObjectMissing
from tests.flows.workspace.test_edit import coco
from tests.unit.dataset.conftest import Line


def line_of(root: Path, folder: str = "photos") -> CocoSource:
    """A folder of real images with its COCO file."""
    (root / folder).mkdir(parents=True)
    images, annotations = Line(root / folder).write()
    return CocoSource(images=str(images), annotations=str(annotations))


def notes_of(root: Path) -> list[str]:
    layout = Layout(root)
    return check_sources(layout, load_params(layout.params))


@pytest.mark.parametrize(
    ("where", "root", "images", "expected"),
    [
        (".", "ws", "ws/photos", "photos"),
        (".", "ws", "./ws/../ws/photos", "photos"),
        ("ws", ".", "photos", "photos"),
        ("ws", ".", "../ws/photos", "photos"),
        ("ws/photos", "..", ".", "photos"),
        (".", "link", "link/photos", "photos"),
        (".", "link", "ws/photos", "photos"),
        (".", "ws", "link/photos", "photos"),
        (".", "ws", "ws/linked", "linked"),  # a link of the workspace that leads out stays a path of the workspace
        (".", "ws", "other", "{tmp}/other"),
        (".", "ws", "ws-2", "{tmp}/ws-2"),
    ],
)
def test_paths_are_written_relative_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, root: str, images: str, expected: str
) -> None:
    for folder in ("ws/photos", "other", "ws-2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to("ws")
    (tmp_path / "ws" / "linked").symlink_to(tmp_path / "other")
    monkeypatch.chdir(tmp_path / where)
    found = written(Path(root).absolute(), CocoSource(images=images, annotations=f"{images}/labels.json"))
    assert found.images == expected.format(tmp=tmp_path)
    assert found.annotations == f"{found.images}/labels.json"


@pytest.mark.parametrize("root", ["photos", "photos/ws", "photos/2026/ws"])
def test_a_workspace_in_its_folder_of_images_is_refused(tmp_path: Path, root: str) -> None:
    source = line_of(tmp_path)
    source = CocoSource(images=str(tmp_path / "photos"), annotations=source.annotations)
    with pytest.raises(ConfigError, match="lies in its folder of images"):
        init_workspace(tmp_path / root, source, None, [])
    assert not (tmp_path / root / "params.yaml").exists()


def test_init_and_sessions_write_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "ws"
    train, week, wrong = (coco(root / name) for name in ("photos", "week", "wrong"))
    monkeypatch.chdir(tmp_path)
    params = init_workspace(Path("ws"), train, week, [("s1", ["hook"])])
    assert params.dataset.train == CocoSource(images="photos/images", annotations="photos/annotations.json")
    assert params.dataset.val == CocoSource(images="week/images", annotations="week/annotations.json")
    relative = CocoSource(images="ws/wrong/images", annotations="ws/wrong/annotations.json")
    for source in (relative, wrong):
        assert source_at(root, written(root, source)) == wrong


def test_a_session_counts_by_the_workspace_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "ws"
    source = line_of(root)
    init_workspace(root, source, source, [])
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("base_classes:\n    - bolt\n    - nut", "base_classes:\n    - bolt"))
    monkeypatch.chdir("/")
    add_session(root, "s1", "nut", shots=2)
    add_background(root, "wrong", line_of(root, "more"))
    found = load_params(root / "params.yaml").sessions["wrong"].source
    assert found is not None and (found.images, found.annotations) == ("more/images", "more/labels.json")


def test_data_check_reads_the_workspace_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "ws"
    init_workspace(root, line_of(root), line_of(root, "val"), [])
    monkeypatch.chdir("/")
    done = CliRunner().invoke(app, ["data", "check", "-w", str(root), "--json"])
    assert done.exit_code == 0, done.output
    assert [report["image_count"] for report in json.loads(done.stdout)] == [2, 2]


@pytest.mark.parametrize(
    ("gone", "key"),
    [("photos/images", "dataset.train.images"), ("photos/labels.json", "dataset.train.annotations"),
     ("val/images", "dataset.val.images"), ("val/labels.json", "dataset.val.annotations")],
)  # fmt: skip
@pytest.mark.parametrize("inside", [True, False])
def test_a_source_that_is_gone_has_its_sentence(tmp_path: Path, gone: str, key: str, inside: bool) -> None:
    root = tmp_path / "ws"
    data = root if inside else tmp_path
    init_workspace(root, line_of(data), line_of(data, "val"), [])
    os.rename(data / gone, tmp_path / "away")
    shown = rf"{gone} \(that is {data / gone}\)" if inside else str(data / gone)
    sentence = rf"'{key}' in {root}/params\.yaml is {shown}, which does not exist; put the data there, or correct"
    for call in (lambda: run(root, request_of(root, "ann", "")), lambda: why(root), lambda: notes_of(root)):
        with pytest.raises(ObjectMissing, match=sentence):
            call()
    result = CliRunner().invoke(app, ["data", "check", "-w", str(root)])
    assert isinstance(result.exception, ObjectMissing) and re.search(sentence, str(result.exception))
    (root / "photos.dvc").touch()  # tracked data are DVC's to fetch
    (root / "val.dvc").touch()
    if inside:
        assert notes_of(root) == []


def absolute(root: Path, data: Path) -> None:
    """params.yaml as earlier versions wrote it."""
    text = (root / "params.yaml").read_text()
    for name in ("images", "annotations"):
        text = re.sub(rf"(?m)^(    {name}): (?!\s*/)", rf"\1: {data}/", text)
    (root / "params.yaml").write_text(text)


def test_a_clone_reads_its_own_images(tmp_path: Path) -> None:
    first, clone = tmp_path / "first", tmp_path / "clone"
    init_workspace(first, line_of(first), None, [])
    shutil.copytree(first, clone)
    assert notes_of(clone) == notes_of(first) == []
    params = load_params(clone / "params.yaml")
    assert params.dataset.train is not None
    assert source_at(clone, params.dataset.train).images == str(clone / "photos" / "images")


@pytest.mark.parametrize("git", [False, True])
def test_images_of_another_clone_are_told(tmp_path: Path, git: bool) -> None:
    """The workspace holds the images, or a git repository around both does."""
    for name in ("first", "clone"):
        top = tmp_path / name
        root = top / "line" if git else top
        if name == "first":
            source = line_of(top)
            init_workspace(root, source, None, [])
            absolute(root, top)
        else:
            shutil.copytree(tmp_path / "first", top)
        if git:
            (top / ".git").mkdir(exist_ok=True)
    first, clone = (tmp_path / name / ("line" if git else ".") for name in ("first", "clone"))
    assert notes_of(first.resolve()) == []
    own = tmp_path / "clone" / "photos" / "images"
    fix = str(own) if git else "photos/images"
    sentence = rf"belongs to another copy of this workspace \({first.resolve()}\), but this one has its own at {own}; "
    with pytest.raises(ConfigError, match=sentence + f"write {fix} there"):
        notes_of(clone.resolve())
    with pytest.raises(ConfigError, match=sentence):
        run(clone, request_of(clone, "ann", ""))
    shutil.rmtree(tmp_path / "clone" / "photos")
    notes = notes_of(clone.resolve())
    assert len(notes) == 2 and "'dataset.train.images' is" in notes[0] and "another copy of this workspace" in notes[0]


def test_images_that_workspaces_share_are_not_another_copys(tmp_path: Path) -> None:
    source = line_of(tmp_path / "data")
    other = tmp_path / "data"
    init_workspace(other, source, None, [])
    root = tmp_path / "ws"
    init_workspace(root, source, None, [])  # another line, which reads images of the first one
    assert notes_of(root) == []


def test_the_place_is_no_part_of_a_version(tmp_path: Path) -> None:
    from flows.registry.registration import params_digest

    source = line_of(tmp_path)
    params = init_workspace(tmp_path / "ws", source, source, [("s1", ["nut"])], shots=2)
    changed = params.model_dump(mode="json")
    changed["dataset"]["train"] = {"images": "photos/images", "annotations": "photos/labels.json"}
    changed["dataset"]["val"] = {"images": "/elsewhere/images", "annotations": "/elsewhere/labels.json"}
    moved = Params.model_validate(changed)
    for name in ("base", "s1"):
        assert params_digest(moved, name) == params_digest(params, name)
    changed["dataset"]["labels_on"] = "stored"
    assert params_digest(Params.model_validate(changed), "base") != params_digest(params, "base")
