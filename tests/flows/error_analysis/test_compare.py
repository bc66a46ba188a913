"""`samif errors compare`: a session against the classifier before it, with planted improvements and regressions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flows.cli.errors  # noqa: F401  (registers its commands)
from flows.artifacts.proposal_file import ProposalFile
from flows.workspace.edit import add_background
from samif.classifier.model import Classifier
from samif.config import CocoSource
from samif.dataset.formats import export_labels
from samif.evaluate.evaluate import evaluate
from tests.support.browser import look
from tests.support.console import inside, refusal
from tests.support.handmade import classifier
from tests.support.tagged_line import BACKGROUND, IMAGES, ROWS, THIEF, TaggedLine

BASE = {name: ROWS[name] for name in ("bolt", "gear")}
KNOWN = classifier(BASE, BACKGROUND)


@pytest.fixture
def line(tmp_path: Path, migrated: Path) -> TaggedLine:
    """A workspace with the sessions s1 and s2, whose classifiers a test chooses."""
    line = TaggedLine(tmp_path / "line", migrated)
    put(line, base=KNOWN, s1=KNOWN)
    return line


def put(line: TaggedLine, **heads: Classifier) -> None:
    """Leave classifiers and their evaluations as stages do."""
    proposed = ProposalFile(line.layout.proposals("val")).of
    for name, head in heads.items():
        head.save(line.layout.classifier(name) / "classifier.safetensors")
        scored = evaluate(name, line.val, proposed, head, ["bolt", "gear"], line.params.evaluate)
        scored.evaluation.save(line.layout.evaluation(name) / "evaluation.json")


def tokens(*names: str) -> list[np.ndarray[Any, Any]]:
    return [np.array([ROWS[name]], dtype=np.float32) for name in names]


def compared(line: TaggedLine, *words: str | Path) -> Any:
    return inside(line.layout.root, "errors", "compare", "--json", *words).json


def outcomes(found: Any) -> dict[str, str]:
    return {row["what"]: row["outcome"] for row in found["rows"]}


def test_hard_negatives_that_end_false_names_are_better(line: TaggedLine) -> None:
    put(line, s1=KNOWN.reject(tokens("hook", "wing")))
    found = compared(line, "--session", "s1")
    assert (found["session"], found["before"], found["images"], found["left_out"]) == ("s1", "base", IMAGES, 0)
    false_names, named, *_ = found["rows"]
    assert false_names["what"] == "false names per image" and false_names["before"] > false_names["after"] == 0.0
    assert false_names["low"] <= -false_names["before"] <= false_names["high"] < 0.0
    assert outcomes(found)["false names per image"] == "better"
    assert (named["outcome"], named["before"]) == ("no clear change", named["after"])


def test_a_session_that_takes_names_away_is_worse(line: TaggedLine) -> None:
    put(line, s2=classifier(BASE | {"wing": THIEF}, BACKGROUND))
    found = outcomes(compared(line))
    assert found["rightly named, %"] == found["AP base"] == "worse" and "AP novel" not in found


def test_a_session_that_changes_nothing_is_no_clear_change(line: TaggedLine) -> None:
    assert set(outcomes(compared(line, "--session", "s1")).values()) == {"no clear change"}


def test_table_and_page_name_new_classes(line: TaggedLine, tmp_path: Path) -> None:
    put(line, s2=classifier(BASE | {"wing": ROWS["wing"]}, BACKGROUND))
    done = inside(line.layout.root, "errors", "compare")
    assert done.code == 0 and "new classes, not in these numbers: wing" in done.out, done.err
    assert f"s2 against s1 on {IMAGES} validation images" in done.out and "95% interval" in done.out
    page = line.layout.reports / "compare-s2.html"
    text = page.read_text()
    assert str(page) in done.out and "New classes, not in these numbers: wing" in text
    assert all(what in text for what in ("false names per image", "rightly named, %", "AP base"))
    seen = look(page, 700, tmp_path)
    assert (seen.overflow, seen.broken, seen.requests) == (0, 0, 0)


@pytest.mark.parametrize("learnt", [1, 5])
def test_images_that_a_session_learnt_from_are_left_out(line: TaggedLine, tmp_path: Path, learnt: int) -> None:
    add(line, tmp_path / "accepted", learnt)
    put(line, s2=KNOWN, glare=KNOWN.reject(tokens("hook")))
    found = compared(line)
    assert (found["images"], found["left_out"]) == (IMAGES - learnt, learnt)
    assert compared(line, "--session", "s2")["left_out"] == 0


def add(line: TaggedLine, folder: Path, images: int) -> None:
    """Add a session `glare` that learns from so many validation images."""
    export_labels(line.val.only(range(1, images + 1)), folder, images=True)
    source = CocoSource(images=str(folder / "images"), annotations=str(folder / "instances.json"))
    add_background(line.layout.root, "glare", source)


def test_refusals(line: TaggedLine, tmp_path: Path) -> None:
    root = line.layout.root
    refusal(inside(root, "errors", "compare", "--session", "s9"), "no session 's9'", "s1, s2")
    refusal(inside(root, "errors", "compare"), "evaluations/s2", "run the evaluation again ('samif run')")
    add(line, tmp_path / "accepted", IMAGES)
    put(line, s2=KNOWN, glare=KNOWN)
    refusal(inside(root, "errors", "compare"), f"learnt from all {IMAGES} validation images", "--reviewed")
