"""`samif errors` of a registered version: its own scores on the validation images, whatever the workspace has run."""

from __future__ import annotations

from pathlib import Path

import pytest

import flows.cli.errors  # noqa: F401  (registers its commands)
from samif.config import load_params
from tests.support.console import Done, inside, refusal
from tests.support.tagged_line import IMAGES, ROWS, TaggedLine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> TaggedLine:
    """Versions 1, which knows bolt and gear, and 2, which also knows hook and gives no false name; no stage has left an
    evaluation."""
    line = TaggedLine(tmp_path_factory.mktemp("versions") / "line", migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    line.add("s1", "base", hook=ROWS["hook"])
    return line


def listed(line: TaggedLine, *words: str) -> Done:
    return inside(line.layout.root, "errors", "list", "--json", *words)


@pytest.mark.parametrize(
    ("version", "unknown"), [("demo/1", {"hook", "wing"}), ("demo-classifier/1", {"hook", "wing"}), ("demo/2", set())]
)
def test_the_errors_are_those_of_the_version(made: TaggedLine, version: str, unknown: set[str]) -> None:
    found = listed(made, "--model", version).json
    assert {error["label"] for error in found["errors"]} == unknown
    assert {error["cause"] for error in found["errors"]} <= {"unknown object"}
    number = version[-1]
    assert (found["session"], found["images"]) == (f"demo-classifier/{number}", IMAGES)
    assert Path(found["page"]).name == f"errors-demo-classifier-{number}.html" and Path(found["page"]).is_file()


def test_they_become_a_session(made: TaggedLine, tmp_path: Path) -> None:
    line = made.copy(tmp_path / "line")
    (first, *_) = [error["id"] for error in listed(line, "--model", "demo/1").json["errors"]]
    done = inside(line.layout.root, "errors", "accept", first, "--session", "glare", "--model", "demo/1")
    assert done.code == 0 and "1 objects that are none of the classes" in done.out and "leaves them out" in done.out
    assert load_params(line.layout.params).sessions["glare"].background


def test_refusals(made: TaggedLine) -> None:
    refusal(listed(made, "--model", "demo/9"), "9")
    assert listed(made, "--model", "demo/1", "--session", "base").code == 2
