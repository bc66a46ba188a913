"""Documents agree with the code: links, anchors, command lines, paths, names and parameters."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import samif
from docs.hooks import cli_reference, params_reference
from samif.config import Params
from tests.support.browser import printed_pages
from tests.support.documents import (
    ROOT,
    broken_links,
    command_lines,
    documents,
    faults,
    faults_of_mention,
    mentions,
    missing_names,
    python_blocks,
)

OBJECTS = {"model": "Model", "detections": "Detections"}
"""What the variables of Python examples hold: a class that `samif` exports."""

DOCUMENTS = [str(path.relative_to(ROOT)) for path in documents()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_anchors_resolve(name: str) -> None:
    assert broken_links(ROOT / name) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_command_lines_are_understood(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [fault for line in command_lines(text) for fault in faults(line)] == []
    assert [fault for line in mentions(text) for fault in faults_of_mention(line)] == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_paths_modules_and_parameters_are_there(name: str) -> None:
    assert missing_names((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if "```python" in (ROOT / name).read_text()])
def test_python_examples_import_and_use_what_is_there(name: str) -> None:
    for code in python_blocks((ROOT / name).read_text(encoding="utf-8")):
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in OBJECTS:
                kind = getattr(samif, OBJECTS[node.value.id])
                assert node.attr in {*dir(kind), *getattr(kind, "__annotations__", {})}, f"{node.value.id}.{node.attr}"


def test_every_parameter_has_a_description() -> None:
    missing = []
    models = [("", Params)]
    while models:
        prefix, model = models.pop()
        texts = params_reference.descriptions(model)
        for name, field in model.model_fields.items():
            part = params_reference.model_in(field.annotation)
            if part is not None:
                models.append((f"{prefix}{name}.", part))
            elif not texts.get(name):
                missing.append(f"{prefix}{name}")
    assert missing == []


def test_every_command_argument_and_option_has_a_help_text() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", cli_reference.cli_reference(), re.MULTILINE)
    assert len(rows) > 100
    assert [left for left, right in rows if not re.sub(r"\[[^\]]*\]", "", right).strip()] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, where it builds without a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "WARNING" not in done.stderr
    return folder


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*src=\"([^\"]+)\"|<link[^>]*href=\"([^\"]+)\"", text)
        assert [link for pair in loaded for link in pair if re.match(r"(https?:)?//", link)] == [], page.name


@pytest.mark.parametrize("name", ["card.html", "card.ja.html"])
def test_the_card_of_the_field_guide_is_printed_on_one_page(name: str, site: Path, tmp_path: Path) -> None:
    assert printed_pages(site / "field-guide" / name, tmp_path) == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("samif registry promotes demo/3", "there is no command 'promotes'"),
        (".venv/bin/samif registry promote demo/3 --reason x", "No such option: --reason"),
        ("RAY_AUTH_TOKEN=x samif registry promote", "Missing argument"),
        ("samif registry promote demo/3 demo/4", "unexpected extra argument"),
        ("samif registry", "names no command"),
        ("make service", "there is no target 'service'"),
        ("make services BACKUP=x", "the Makefile does not read BACKUP"),
        ("dvc psh", "not understood"),
        ("python -m benchmarks.no_such", "there is no module benchmarks.no_such"),
        ("mlflow ui", "unknown program"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = faults(line)
    assert len(found) == 1 and sentence in found[0]


def test_a_broken_document_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.documents.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# One title, `code`\n")
    document = tmp_path / "document.md"
    document.write_text("[a](other.md#one-title-code) [b](other.md#two) [c](none.md) [d](https://x.y) ![e](none.png)\n")
    assert broken_links(document) == [
        "other.md#two: there is no such heading",
        "none.md: there is no such file",
        "none.png: there is no such file",
    ]
    text = "`samif/no.py` `samif.no.thing` `gates.no_such` `gates.metric` `summary.json` `flows/stages/NAME.py`"
    assert [fault.partition(":")[0] for fault in missing_names(text)] == [
        "samif/no.py",
        "samif.no.thing",
        "gates.no_such",
    ]


def test_command_lines_are_joined_and_split() -> None:
    text = "```sh\nA=1 samif run \\\n    --why 'a && b'  # comment\ncd x && samif why; make demo\n```\n"
    assert command_lines(text) == ["A=1 samif run --why 'a && b'", "cd x", "samif why", "make demo"]
