"""`samif errors` on a small workspace: planted detections are listed by cause, and accepted ones become a session."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import flows.cli.errors  # noqa: F401  (registers its commands)
from flows.loaders.inputs import dataset_of
from samif.classifier.model import Classifier
from samif.config import load_params
from tests.support.browser import look
from tests.support.console import Done, inside, refusal
from tests.support.handmade import rectangle, rle
from tests.support.small_line import Line, draw, write_small


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A line that knows bolt and gear. On the validation images all hooks and one corner are named bolt; nothing else
    is found."""
    root = tmp_path_factory.mktemp("errors")
    line = write_small(root)
    line.run("dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base")
    val = dataset_of(line.layout, line.params, "val")
    bolt = val.category_ids(["bolt", "gear"])["bolt"]
    masks = [(image.id, a.rle) for image in val.images for a in image.annotations if a.category == "hook"]
    first = val.images[0]
    masks.append((first.id, rle(rectangle((first.height, first.width), 0, 0, 4, 5))))
    planted = [{"image_id": id_, "category_id": bolt, "segmentation": mask, "score": 1.0} for id_, mask in masks]
    (line.layout.evaluation() / "detections.json").write_text(json.dumps(planted))
    return line


@pytest.fixture
def line(made: Line, tmp_path: Path) -> Line:
    """A copy that a test may change."""
    shutil.copytree(made.layout.root, tmp_path / "ws")
    return Line(type(made.layout)(tmp_path / "ws"), made.params)


def listed(line: Line) -> Any:
    return inside(line.layout.root, "errors", "list", "--json").json


def ids(line: Line, cause: str) -> list[str]:
    found = [error["id"] for error in listed(line)["errors"] if error["cause"] == cause]
    assert found
    return found


def accepted(line: Line, *words: str) -> Done:
    done = inside(line.layout.root, "errors", "accept", *words)
    assert done.code == 0, done.err
    return done


def learnt(line: Line, name: str) -> Classifier:
    """The classifier of a session, by the stage that `samif run` starts."""
    Line(line.layout, load_params(line.layout.params)).run("session", session=name)
    return Classifier.load(line.layout.classifier(name) / "classifier.safetensors")


def test_counts_ids_and_page(line: Line, tmp_path: Path) -> None:
    found = listed(line)
    counts = {(row["cause"], row["class"]): row["errors"] for row in found["counts"]}
    assert counts == {
        ("unknown object", "bolt"): 4,
        ("background", "bolt"): 1,
        ("missed mask", "bolt"): 4,
        ("missed mask", "gear"): 4,
    }
    assert (found["session"], found["images"], len(found["errors"])) == ("base", 2, 13)
    assert listed(line)["errors"] == found["errors"]
    done = inside(line.layout.root, "errors", "list", "--session", "base")
    assert "13 errors of base on 2 validation images" in done.out and "unknown object" in done.out
    page = Path(found["page"])
    text = page.read_text()
    assert all(error["id"] in text for error in found["errors"])
    assert "samif errors accept ID … --session NAME --of base</code>" in text
    assert page == line.layout.reports / "errors-base.html" and text.count("<img") == 13
    seen = look(page, 900, tmp_path)
    assert (seen.overflow, seen.broken, seen.requests, seen.images) == (0, 0, 0, 13)


def test_accepted_false_names_become_hard_negatives(line: Line) -> None:
    chosen = [*ids(line, "unknown object")[:2], *ids(line, "background")]
    done = accepted(line, *chosen, "--session", "glare")
    assert "3 objects that are none of the classes" in done.out and "leaves them out" in done.out
    after = learnt(line, "glare")
    assert after.classes == ("bolt", "gear") and len(after.negatives) == 3
    copies = line.layout.root / "accepted" / "glare" / "images"
    for path in copies.iterdir():
        with Image.open(path) as image:
            assert image.size[0]


def test_accepted_unknown_objects_become_shots_of_their_class(line: Line) -> None:
    done = accepted(line, *ids(line, "unknown object"), "--session", "week1", "--as", "shots")
    assert "hook, 4 shots each" in done.out
    after = learnt(line, "week1")
    assert after.classes == ("bolt", "gear", "hook") and after.counts[-1] == 4


def test_an_error_on_a_class_of_a_session_names_the_session(line: Line) -> None:
    """What is learnt again is a session, not the base."""
    errors = accepted(line, *ids(line, "unknown object"), "--session", "week1", "--as", "shots")
    assert "week1" in errors.out
    learnt(line, "week1")
    Line(line.layout, load_params(line.layout.params)).run("evaluate", session="week1")
    found = listed(line)
    assert found["session"] == "week1"
    hooks = [e["id"] for e in found["errors"] if e["label"] == "hook" and e["name"] is None]
    if not hooks:  # all of them are found: take their detections away
        (line.layout.evaluation("week1") / "detections.json").write_text("[]")
        hooks = [e["id"] for e in listed(line)["errors"] if e["label"] == "hook"]
    words = ("errors", "accept", hooks[0], "--session", "x", "--as", "shots")
    refusal(inside(line.layout.root, *words), "'hook' is a known class", "remove session 'week1'", "more shots")


def test_other_images_say_whether_a_session_helped(line: Line, tmp_path: Path) -> None:
    """Where it learnt from all validation images."""
    accepted(line, *ids(line, "unknown object"), "--session", "glare")
    learnt(line, "glare")
    Line(line.layout, load_params(line.layout.params)).run("evaluate", session="glare")
    root = line.layout.root
    refusal(inside(root, "errors", "compare"), "learnt from all 2 validation images", "--reviewed")
    other = draw(tmp_path / "other", 5)
    found = inside(root, "errors", "compare", "--reviewed", other["annotations"], "--json").json
    assert (found["images"], found["left_out"], found["before"]) == (2, 0, "base")
    assert {"false names per image", "rightly named, %"} <= {row["what"] for row in found["rows"]}
    again = inside(root, "errors", "compare", "--reviewed", line.params.dataset.val.annotations)  # type: ignore[union-attr]
    refusal(again, "learnt from all 2 reviewed images")


def test_refusals_change_nothing(line: Line) -> None:
    before = line.layout.params.read_bytes()
    (missed, *_), (background,) = ids(line, "missed mask"), ids(line, "background")
    words = ("errors", "accept")
    root = line.layout.root
    known = refusal(inside(root, *words, missed, background, "--session", "x"), "nothing was added", "missed mask")
    assert f"{missed} (missed mask) cannot become hard negatives: 'bolt' is a known class, and rows of known" in known
    assert "add labelled images of it to the training images" in known and background not in known
    refusal(inside(root, *words, background, "--session", "x", "--as", "shots"), "accept it as background")
    refusal(inside(root, *words, "0" * 8, "--session", "x"), "there is no error 00000000 of base")
    refusal(inside(root, *words, background, "--session", "../x"), "cannot be the name of a session")
    refusal(inside(root, *words, background, "--session", "base"), "base")
    refusal(inside(root, "errors", "list", "--session", "week9"), "there is no session 'week9'")
    assert line.layout.params.read_bytes() == before
    assert not list((root / "accepted").glob("*")) and not (root.parent / "x").exists()
    accepted(line, background, "--session", "x")
    refusal(inside(root, *words, background, "--session", "x", "--of", "base"), "exists")
