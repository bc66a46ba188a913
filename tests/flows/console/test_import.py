"""Labels of other tools, sent to the console: as files, as a folder, and as a ZIP archive."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from flows.console import uploads
from samif.masks.rle import decode
from tests.flows.console.conftest import client
from tests.support.label_formats import SCENES, WRITERS, draw_images, labelme, write_coco
from tests.support.small_line import write_small

SET = "/api/workspaces/1/sets/photos"
OBJECTS = sum(len(objects) for objects in SCENES.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("import")).layout.root


@pytest.fixture
def opened(made: Path, tmp_path: Path) -> TestClient:
    """A console over the scenes' images, none of which is labelled."""
    draw_images(tmp_path / "photos")
    for path in (made / "labels").glob("*"):
        path.unlink()
    return client([made], [tmp_path / "photos"], "labeller")


def sent(source: Path) -> list[tuple[str, tuple[str, bytes]]]:
    """A file, or the files of a folder with their paths, as a browser sends them."""
    if source.is_file():
        return [("files", (source.name, source.read_bytes()))]
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    return [("files", (f"chosen/{path.relative_to(source)}", path.read_bytes())) for path in paths]


def zipped(members: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return [("files", ("labels.zip", out.getvalue()))]


def labelled(opened: TestClient) -> dict[str, list[dict[str, Any]]]:
    """The objects of every image."""
    return {name: opened.get(f"{SET}/labels", params={"name": name}).json()["objects"] for name in SCENES}


def check_scenes(opened: TestClient) -> None:
    for name, objects in labelled(opened).items():
        assert sorted(o["name"] for o in objects) == sorted(d.category for d in SCENES[name])
        masks = [decode([o["rle"]])[0] for o in objects]
        for drawn in SCENES[name]:
            assert max((m & drawn.mask).sum() / (m | drawn.mask).sum() for m in masks) >= 0.99


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_imported_from_a_folder_and_an_archive(kind: str, opened: TestClient, tmp_path: Path) -> None:
    format_, write = WRITERS[kind]
    source = write(tmp_path / "in")
    done = opened.post(f"{SET}/import", files=sent(source))
    assert done.status_code == 200, done.text
    told = done.json()
    assert (told["format"], told["images"], told["objects"], told["left_out"]) == (format_, 3, OBJECTS, 0)
    check_scenes(opened)
    members = {name: content for _, (name, content) in sent(source)}
    again = opened.post(f"{SET}/import", files=zipped(members), data={"labelled": "replace", "format": format_})
    assert again.status_code == 200 and again.json()["objects"] == OBJECTS
    check_scenes(opened)
    (first, second) = opened.get("/api/workspaces/1/actions").json()[:2]
    assert (first["action"], first["labelled"], second["labelled"]) == ("import labels", "replace", "keep")


@pytest.mark.parametrize(("policy", "factor", "kept"), [("keep", 1, 3), ("replace", 1, 0), ("join", 2, 0)])
def test_labelled_images_keep_get_or_join_labels(
    policy: str, factor: int, kept: int, opened: TestClient, tmp_path: Path
) -> None:
    files = sent(write_coco(tmp_path / "in"))
    for _ in range(2):
        told = opened.post(f"{SET}/import", files=files, data={"labelled": policy}).json()
    assert len(told["kept"]) == kept
    found = labelled(opened)
    assert {name: len(objects) for name, objects in found.items()} == {n: factor * len(o) for n, o in SCENES.items()}
    ids = [o["id"] for objects in found.values() for o in objects]
    assert len(ids) == len(set(ids))


def test_an_exported_archive_is_imported_again(opened: TestClient, tmp_path: Path) -> None:
    opened.post(f"{SET}/import", files=sent(write_coco(tmp_path / "in")))
    for format_ in ("coco", "labelme", "masks"):
        archive = opened.get(f"{SET}/export", params={"format": format_}).content
        files = [("files", ("photos.zip", archive))]
        told = opened.post(f"{SET}/import", files=files, data={"labelled": "replace"})
        assert told.status_code == 200 and told.json()["objects"] == OBJECTS, (format_, told.text)
        check_scenes(opened)


def test_what_is_left_out_is_listed(opened: TestClient, tmp_path: Path) -> None:
    polygon = {"label": "bolt", "points": [[5, 5], [30, 7], [28, 20]], "shape_type": "polygon"}
    box = polygon | {"points": [[5, 5], [30, 20]], "shape_type": "rectangle"}
    nameless = polygon | {"label": ""}
    files = [
        ("files", (name, json.dumps(labelme(image, shapes)).encode()))
        for name, image, shapes in (
            ("a1.json", "a1.png", [polygon, box]),
            ("b2.json", "b2.png", [polygon, nameless]),
            ("elsewhere.json", "elsewhere.png", [polygon]),
        )
    ]
    told = opened.post(f"{SET}/import", files=files).json()
    assert (told["images"], told["objects"], told["left_out"]) == (2, 2, 3)
    losses = {(f["loss"], f["count"]) for f in told["findings"] if f["loss"]}
    assert losses == {("label", 1), ("image", 1)} and len([f for f in told["findings"] if f["loss"]]) == 3
    text = json.dumps(told)
    assert "--" not in text and "/tmp" not in text and "samif-import" not in text
    options = {"boxes": "outline", "default_class": "thing", "labelled": "replace"}
    told = opened.post(f"{SET}/import", files=files, data=options).json()
    assert (told["objects"], told["left_out"]) == (4, 1)
    assert sorted(o["name"] for o in labelled(opened)["b2.png"]) == ["bolt", "thing"]


def test_bad_uploads_are_refused_in_one_sentence_and_change_nothing(
    opened: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = write_coco(tmp_path / "in").read_bytes()
    unknown = coco.replace(b'"bolt"', b'"unknown"')
    for files, words in (
        ([("files", ("a.txt", b"no labels"))], "text file"),
        ([("files", ("a.json", b"{}"))], "no format that samif imports"),
        ([("files", ("a.json", b"\xff\xfe"))], "a.json"),
        ([("files", ("../../a.json", coco))], "no name of a file within a folder"),
        ([("files", ("/etc/a.json", coco))], "no name of a file within a folder"),
        (zipped({"../a.json": coco}), "no name of a file within a folder"),
        (zipped({}), "labels"),
        ([("files", ("a.zip", b"PK no archive"))], "a.zip cannot be unpacked"),
        ([("files", ("a.json", unknown))], "stands for none"),
        ([("files", ("a.json", coco.replace(b".png", b".jpg")))], "no labelled image"),
    ):
        answer = opened.post(f"{SET}/import", files=files)
        sentence = answer.json()["error"]["message"]
        assert answer.status_code == 422 and words in sentence and "samif-import" not in sentence, answer.text
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    answer = opened.post(f"{SET}/import", files=zipped({"a.json": coco + b" " * 1000}))
    assert answer.status_code == 422 and "leave the images out" in answer.json()["error"]["message"]
    assert opened.post(f"{SET}/import").status_code == 422
    assert all(objects == [] for objects in labelled(opened).values())
    assert not list(tmp_path.glob("*.json")) and np.all([not p.name.startswith("samif") for p in tmp_path.iterdir()])
