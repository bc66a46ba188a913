"""`samif errors` on kept answers of a service: planted wrong answers, judged by labels that a person corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import flows.cli.errors  # noqa: F401  (registers its commands)
from samif.config import load_params
from samif.dataset.coco import read_coco
from samif.dataset.formats import export_labels
from samif.dataset.model import Dataset
from tests.support.console import inside, refusal
from tests.support.handmade import rectangle, rle
from tests.support.kept import answer_to, instance, keep
from tests.support.small_line import Line, draw, write_small

CORNER = (0, 0, 4, 5)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return write_small(tmp_path)


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    """Two images of production with their right labels: two bolts, gears and hooks each."""
    place = draw(tmp_path / "production", 7)
    return read_coco(Path(place["images"]), Path(place["annotations"]))[0]


def serve(folder: Path, images: Dataset) -> None:
    """What a version that knows bolt and gear answered: bolts rightly, hooks as bolts, one gear without a name, and a
    bolt in the corner of the first image."""
    for number, image in enumerate(images.images):
        body = images.path_of(image).read_bytes()
        found = [instance("bolt", a.rle) for a in image.annotations if a.category in ("bolt", "hook")]
        gears = [a.rle for a in image.annotations if a.category == "gear"]
        found += [instance("unknown", gears[0]), instance("gear", gears[1])]
        if number == 0:
            found.append(instance("bolt", rle(rectangle((image.height, image.width), *CORNER))))
        assert keep(folder, body, answer_to(body, instances=found, model=f"demo-classifier/{number + 1}"))


def listed(line: Line, kept: Path, labels: Path, *more: str) -> Any:
    return inside(line.layout.root, "errors", "list", "--kept", kept, "--reviewed", labels, "--json", *more).json


def counts(found: Any) -> dict[tuple[str, str], int]:
    return {(row["cause"], row["class"]): row["errors"] for row in found["counts"]}


PLANTED = {("unknown object", "bolt"): 4, ("background", "bolt"): 1, ("no name", "gear"): 2}


@pytest.mark.parametrize("format_", ["coco", "labelme", "yolo", "cvat"])
def test_planted_errors_are_found_by_labels_in_every_format(
    line: Line, images: Dataset, tmp_path: Path, format_: str
) -> None:
    serve(tmp_path / "kept", images)
    export_labels(images, tmp_path / "next", format_, images=True)
    found = listed(line, tmp_path / "kept", tmp_path / "next")
    assert counts(found) == PLANTED and found["images"] == 2
    assert found["notes"] == ["answers of demo-classifier/1, demo-classifier/2"]
    page = Path(found["page"]).read_text()
    assert "On 2 reviewed images" in page and all(error["id"] in page for error in found["errors"])
    assert f"--session NAME --kept {tmp_path / 'kept'} --reviewed {tmp_path / 'next'}</code>" in page


def test_images_that_a_tool_has_written_anew_are_found_by_name(line: Line, images: Dataset, tmp_path: Path) -> None:
    serve(tmp_path / "kept", images)
    export_labels(images, tmp_path / "first", images=True)
    names = {path.read_bytes(): path.name for path in (tmp_path / "kept" / "images").iterdir()}
    content = json.loads((tmp_path / "first" / "instances.json").read_text())
    (tmp_path / "second").mkdir()
    for record in content["images"]:
        path = tmp_path / "first" / "images" / record["file_name"]
        record["file_name"] = Path(names[path.read_bytes()]).stem + ".bmp"
        with Image.open(path) as image:
            image.save(tmp_path / "second" / record["file_name"])
    (tmp_path / "second" / "labels.json").write_text(json.dumps(content))
    assert counts(listed(line, tmp_path / "kept", tmp_path / "second" / "labels.json")) == PLANTED


def test_an_image_without_labels_shows_nothing(line: Line, images: Dataset, tmp_path: Path) -> None:
    serve(tmp_path / "kept", images)
    export_labels(images, tmp_path / "next", images=True)
    file = tmp_path / "next" / "instances.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    assert counts(listed(line, tmp_path / "kept", file)) == {("background", "bolt"): 9, ("background", "gear"): 2}


def test_reviewed_images_without_an_answer_are_told(line: Line, images: Dataset, tmp_path: Path) -> None:
    serve(tmp_path / "kept", images.only([1]))
    export_labels(images, tmp_path / "next", images=True)
    found = listed(line, tmp_path / "kept", tmp_path / "next")
    assert found["images"] == 1 and "1 reviewed images have no answer" in found["notes"][1]
    assert "2.png" in found["notes"][1]


@pytest.mark.parametrize(("use", "words"), [("background", "2 objects that are none"), ("shots", "hook, 4 shots each")])
def test_accepted_ones_become_a_session(line: Line, images: Dataset, tmp_path: Path, use: str, words: str) -> None:
    serve(tmp_path / "kept", images)
    export_labels(images, tmp_path / "next", images=True)
    found = listed(line, tmp_path / "kept", tmp_path / "next")["errors"]
    ids = [error["id"] for error in found if error["cause"] == "unknown object"]
    if use == "background":
        ids = [ids[0], *(error["id"] for error in found if error["cause"] == "background")]
    source = ("--kept", tmp_path / "kept", "--reviewed", tmp_path / "next")
    done = inside(line.layout.root, "errors", "accept", *ids, "--session", "week1", "--as", use, *source)
    assert done.code == 0 and words in done.out and "validation" not in done.out, done.err
    session = load_params(line.layout.params).sessions["week1"]
    assert session.background == (use == "background") and session.source is not None
    assert list((line.layout.root / "accepted" / "week1" / "images").iterdir())


def test_an_object_that_has_no_name_yet_is_no_shot(line: Line, images: Dataset, tmp_path: Path) -> None:
    serve(tmp_path / "kept", images)
    export_labels(images, tmp_path / "next", images=True)
    file = tmp_path / "next" / "instances.json"
    file.write_text(file.read_text().replace('"hook"', '"unknown"'))
    found = listed(line, tmp_path / "kept", file)["errors"]
    (first, *_) = [error["id"] for error in found if error["cause"] == "unknown object"]
    words = ("errors", "accept", first, "--session", "x", "--kept", tmp_path / "kept", "--reviewed", file)
    refusal(inside(line.layout.root, *words, "--as", "shots"), first, "label 'unknown'", "give the objects the name")
    assert inside(line.layout.root, *words).code == 0


def test_refusals(line: Line, images: Dataset, tmp_path: Path) -> None:
    root, kept = line.layout.root, tmp_path / "kept"
    export_labels(images, tmp_path / "next", images=True)
    words = ("errors", "list", "--reviewed", tmp_path / "next", "--kept")
    refusal(inside(root, *words, tmp_path / "next"), "no folder of kept answers", "samif serve --keep")
    body = images.path_of(images.images[0]).read_bytes()
    other = tmp_path / "production" / "images" / "3.png"
    Image.new("RGB", (30, 20)).save(other)
    keep(kept, other.read_bytes(), answer_to(other.read_bytes()))
    refusal(inside(root, *words, kept), "none of the 2 images", "samif suggest")
    keep(kept, body, answer_to(body))
    refusal(inside(root, "errors", "list", "--reviewed", tmp_path / "gone", "--kept", kept), "gone does not exist")
    broken = max((kept / "answers").iterdir())
    broken.write_text("{")
    refusal(inside(root, *words, kept), broken.name, "delete it")
    for wrong in (("--kept", str(kept)), ("--reviewed", "x"), (*words[2:], kept, "--session", "base")):
        assert inside(root, "errors", "list", *wrong).code == 2
