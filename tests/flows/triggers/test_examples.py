"""The examples in infra/triggers do what they say: every step of the workflow, and the schedule's files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from flows.cli import app
from flows.comparison.examiner import Examiner
from flows.comparison.markdown import markdown
from flows.registry.promotion_request import Request
from tests.support.tagged_line import ROWS, TaggedLine

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "infra" / "triggers"
WORKFLOW = YAML(typ="safe").load((EXAMPLES / "retrain.yml").read_text())
STEPS = [step for step in WORKFLOW["jobs"]["retrain"]["steps"] if "run" in step]

STAND_INS = {
    # What takes long, or is not of this machine, says how it was called and does the part that the next steps need.
    "samif": """case "$1" in
run) echo "samif $*" >> "$CALLS"; echo "stages: {run: {}}" > dvc.lock ;;
submit) echo "samif $*" >> "$CALLS"; echo "stages: {submitted: {}}" > dvc.lock ;;
*) exec "$PYTHON" -c "from flows.cli import main; main()" "$@" ;;
esac
""",
    "dvc": 'echo "dvc $*" >> "$CALLS"\n',
    "gh": 'echo "gh $*" >> "$CALLS"; cp "$5" posted.md\n',
    "python": 'if [ "$2" = pip ]; then echo "python $*" >> "$CALLS"; else exec "$PYTHON" "$@"; fi\n',
}


@pytest.fixture
def line(tmp_path: Path, migrated: Path) -> TaggedLine:
    """A line with version 1 live and version 2 as its candidate, in a git repository with a remote."""
    root = tmp_path / "line"
    line = TaggedLine(root, migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    examiner = Examiner(line.layout, line.params, line.registry)
    line.registry.promotions("demo", line.params).promote(
        1, Request("ann"), lambda _: examiner.evidence("demo-classifier/1", None)
    )
    line.add("s1", "base", hook=ROWS["hook"])
    (root / ".gitignore").write_text("/.samif/\n/artifacts/\n/made/\n")
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", ".")
    git(root, "-c", "user.name=ann", "-c", "user.email=ann@line.example", "commit", "--quiet", "--message", "begin")
    git(root, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(root, "push", "--quiet", "origin", "main")
    return line


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("event", "address", "called"),
    [
        (
            "pull_request",
            "",
            "dvc pull --run-cache --allow-missing\n"
            "samif run --who ann --why hooks $(touch pwned) `touch pwned`\n"
            "dvc push --run-cache\n"
            "gh pr comment 7 --body-file comparison.md\n",
        ),
        (
            "push",
            "http://head.example:8265",
            "samif submit --retry-failed --who ann --why hooks $(touch pwned) `touch pwned`\n",
        ),
    ],
)
def test_every_step_of_the_workflow(line: TaggedLine, tmp_path: Path, event: str, address: str, called: str) -> None:
    root, calls = line.layout.root, tmp_path / "calls"
    for name, script in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\nset -e\n{script}")
        path.chmod(0o755)
    values = {
        "WHO": "ann",
        "WHY": "hooks $(touch pwned) `touch pwned`\nand a second line",
        "BRANCH": "main",
        "PULL_REQUEST": "7",
        "RAY_API_SERVER_ADDRESS": address,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    unset = {name: "" for name in WORKFLOW["jobs"]["retrain"]["env"] if name not in values}
    surroundings = {"CALLS": str(calls), "PYTHON": sys.executable, "PYTHONPATH": str(EXAMPLES.parents[1])}
    surroundings["PATH"] = f"{tmp_path / 'bin'}:{os.defpath}"
    for step in STEPS:
        if "if" in step:
            assert step["if"] == "github.event_name == 'pull_request'"
            if event != "pull_request":
                continue
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
            cwd=root, env=os.environ | unset | values | surroundings, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{step['name']}: {done.stdout}{done.stderr}"

    install, rest = calls.read_text().split("\n", 1)
    assert install == "python -m pip install --quiet --requirement requirements.txt" and rest == called
    assert not list(root.rglob("pwned"))
    lock = "stages: {submitted: {}}\n" if address else "stages: {run: {}}\n"
    assert git(tmp_path / "origin.git", "show", "main:dvc.lock") == lock
    assert git(root, "status", "--porcelain", "--untracked-files=no") == ""
    table = (root / "comparison.md").read_text()
    assert table.startswith("### demo-classifier/2 against demo-classifier/1: ")
    assert "| **base** | 48 | 100.0 | 100.0 |" in table and "new: hook" in table
    assert re.search(r"- \*\*unclear\*\*: no commit holds the version's dvc.lock", table) is None
    assert (tmp_path / "summary.md").read_text() == table
    assert (root / "posted.md").exists() == (event == "pull_request")


def test_no_expression_is_pasted_into_a_script_and_no_secret_into_a_command() -> None:
    job = WORKFLOW["jobs"]["retrain"]
    assert not [step for step in STEPS if "${{" in step["run"]]
    secrets = [name for name, value in job["env"].items() if "secrets." in str(value) or "token" in str(value)]
    assert len(secrets) == 6
    assert not [step["name"] for step in STEPS for name in secrets if name in step["run"]]
    triggers = WORKFLOW[True] if True in WORKFLOW else WORKFLOW["on"]
    for event in ("push", "pull_request"):
        # labels may be in any file of the repository; its own commit of dvc.lock must not start the next run
        assert triggers[event]["paths"] == ["**", "!dvc.lock", "!**.md"]


def test_the_table_shows_what_a_person_wrote_as_it_is(line: TaggedLine) -> None:
    line.add("s2", "s1", **{"wing|<b>": ROWS["wing"]})
    examination = Examiner(line.layout, line.params, line.registry).examine("demo-classifier/3", "demo-classifier/1")
    table = markdown(examination, "demo-classifier/3", "demo-classifier/1")
    assert "wing\\|\\<b\\>" in table and "<b>" not in table.replace("\\<b\\>", "")
    rows = [row for row in table.splitlines() if row.startswith("|")]
    assert {re.sub(r"\\.", "", row).count("|") for row in rows} == {7}
    first = Examiner(line.layout, line.params, line.registry).examine("demo-classifier/1", None)
    assert "| **base** | 100.0 | 100.0 |" in markdown(first, "demo-classifier/1", None)


def test_what_is_live_is_not_compared_with_itself(tmp_path: Path, migrated: Path) -> None:
    import flows.cli.trigger  # noqa: F401

    line = TaggedLine(tmp_path / "line", migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    words = ["trigger", "comparison", "-w", str(line.layout.root)]
    assert CliRunner().invoke(app, words).stdout.startswith("### demo-classifier/1 against nothing live: passed")
    examiner = Examiner(line.layout, line.params, line.registry)
    line.registry.promotions("demo", line.params).promote(
        1, Request("ann"), lambda _: examiner.evidence("demo-classifier/1", None)
    )
    said = CliRunner().invoke(app, words).stdout
    assert said == "demo-classifier/1 is live already; there is nothing newer to compare.\n"


@pytest.mark.parametrize("unit", ["samif-run@.service", "samif-run@.timer"])
def test_the_schedule_is_what_systemd_reads(unit: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    for name in ("samif-run@.service", "samif-run@.timer"):
        shutil.copyfile(EXAMPLES / name, tmp_path / name)
    done = subprocess.run([analyze, "verify", tmp_path / unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
