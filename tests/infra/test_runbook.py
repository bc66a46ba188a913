"""Every command of the runbook exists and would be understood, options included."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.infra_commands import check_make, check_samif

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "infra" / "RUNBOOK.md").read_text()
PAGES = re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)
OTHERS = {"mv", ".", "kubectl"}
"""Programs that are not ours; their paths are looked at, not their options."""


def blocks(text: str) -> list[str]:
    """Command lines of fenced blocks."""
    fenced = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in fenced for line in block.splitlines()]


def mentions(text: str) -> list[str]:
    """`...` in running text that begins with one of our programs; it may leave arguments out."""
    running = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    code = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", running)]
    return [line for line in code if re.match(r"(samif|make|dvc) [a-z]", line)]


def faults(line: str) -> list[str]:
    words = shlex.split(line)
    if words[0] == "samif":
        return check_samif(words)
    if words[0] == "make":
        return check_make(words)
    if words[0] == "dvc":
        return _dvc(tuple(words[1:]))
    return [] if words[0] in OTHERS else [f"{line}: unknown program"]


def _dvc(words: tuple[str, ...]) -> list[str]:
    from dvc.cli import DvcParserError, parse_args

    try:
        parse_args(list(words))
    except DvcParserError:
        return [f"dvc {' '.join(words)}: not understood"]
    return []


@pytest.mark.parametrize("line", blocks(RUNBOOK))
def test_every_command_would_be_understood(line: str) -> None:
    assert faults(line) == []


@pytest.mark.parametrize("line", mentions(RUNBOOK))
def test_every_command_that_is_mentioned_is_there(line: str) -> None:
    assert [fault for fault in faults(line) if "Missing argument" not in fault] == []


def test_the_pages_are_there_and_end_with_how_to_see_that_it_worked() -> None:
    wanted = ("Promote", "Roll back", "lost database", "lost bucket", "Rotate", "Upgrade the encoder")
    assert [word for word in wanted if not any(word in page for page in PAGES)] == []
    for page in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]:
        title = page.split("\n")[0]
        assert "Worked if:" in page and len(blocks(page)) > 0, title
        assert len(page.splitlines()) <= 45, title


def test_paths_that_it_names_are_there() -> None:
    for path in re.findall(r"infra/[\w/.-]*\w|\]\((\w[\w/.-]*)\)", RUNBOOK):
        assert path == "" or (ROOT / "infra" / path).exists()
    for path in re.findall(r"infra/[\w/.-]*\w", RUNBOOK):
        assert (ROOT / path).exists(), path
    keys = (ROOT / "params.yaml").read_text()
    for section, key in re.findall(r"`(encoder|gates)\.(\w+)`", RUNBOOK):
        assert re.search(rf"^{section}:.*(\n  .*)*\n  {key}:", keys, re.MULTILINE), key


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("samif registry promotes demo/3", "there is no command 'promotes'"),
        ("samif registry promote demo/3 --reason x", "No such option: --reason"),
        ("samif registry promote", "Missing argument"),
        ("samif registry promote demo/3 demo/4", "unexpected extra argument"),
        ("samif registry", "names no command"),
        ("make service", "there is no target 'service'"),
        ("make services BACKUP=x", "the Makefile does not read BACKUP"),
        ("dvc psh", "not understood"),
        ("mlflow ui", "unknown program"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = faults(line)
    assert len(found) == 1 and sentence in found[0]


def test_make_asks_for_the_folder_of_a_backup() -> None:
    for target in ("services-backup", "services-restore"):
        command = ["make", "--silent", "--assume-old=.venv/.installed", target, f"BIN={Path(sys.executable).parent}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0 and "name the folder of the backup: SERVICES_BACKUP=folder" in done.stderr
