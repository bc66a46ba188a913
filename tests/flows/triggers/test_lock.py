"""A candidate for promotion needs a committed dvc.lock; where no commit can hold one, nothing is asked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.comparison.examiner import Examiner
from flows.registry.promotion_request import Request
from flows.workspace.layout import Layout
from flows.workspace.revision import lock_state
from samif.errors import SamifError
from samif.io.hashing import file_sha256
from tests.support.tagged_line import ROWS, TaggedLine


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=ann", "-c", "user.email=ann@line.example")
    subprocess.run(["git", "-C", root, *who, *words], check=True, capture_output=True)


@pytest.fixture
def line(tmp_path: Path, migrated: Path) -> TaggedLine:
    """A line with one version, in a folder of a git repository that has one commit without it."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "begin")
    line = TaggedLine(tmp_path / "line", migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    return line


def promote(line: TaggedLine, approve: str | None = None) -> int | None:
    examiner = Examiner(line.layout, line.params, line.registry)
    name = f"{line.line}-classifier"
    request = Request("ann", approve=approve)
    return (
        line.registry.promotions(line.line, line.params)
        .promote(1, request, lambda _: examiner.evidence(f"{name}/1", None))
        .version
    )


def test_without_a_commit_a_person_decides(line: TaggedLine) -> None:
    sha256 = file_sha256(line.layout.lock)
    with pytest.raises(SamifError, match=f"person's approval about this: no commit holds .*{sha256[:12]}.*; commit it"):
        promote(line)
    assert promote(line, approve="carl") == 1


def test_a_commit_of_another_branch_or_before_later_ones_counts(line: TaggedLine) -> None:
    root, mine = line.layout.root, line.layout.lock.read_text()
    git(root, "switch", "--quiet", "--create", "run")
    git(root, "add", "dvc.lock")
    git(root, "commit", "--quiet", "--message", "this run")
    line.layout.lock.write_text("stages: {later: {}}\n")
    git(root, "commit", "--quiet", "--all", "--message", "a later run")
    later = file_sha256(line.layout.lock)
    git(root, "switch", "--quiet", "-")
    assert not line.layout.lock.exists()
    line.layout.lock.write_text(mine)
    assert lock_state(line.layout, later) == "committed"
    assert lock_state(line.layout, "0" * 64) == lock_state(line.layout, None) == "uncommitted"
    assert promote(line) == 1


def test_where_no_commit_can_hold_it_nothing_is_asked(
    line: TaggedLine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (line.layout.root / ".gitignore").write_text("/dvc.lock\n")
    assert lock_state(line.layout, file_sha256(line.layout.lock)) == "ignored"
    assert lock_state(Layout(tmp_path_factory.mktemp("plain")), None) == "no git"
    examination = Examiner(line.layout, line.params, line.registry).examine("demo-classifier/1", None)
    (check,) = [check for check in examination.verdict.checks if check.name == "lock"]
    assert check.outcome == "skipped" and "git ignores dvc.lock" in check.reason
    assert promote(line) == 1
