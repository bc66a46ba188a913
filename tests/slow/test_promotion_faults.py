"""Promotion with concurrent and killed operators, on SQLite and on a server: nothing is lost, doubled or inconsistent.

SAMIF_RECORD=1 also writes the counts to benchmarks/PROMOTION.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.services import mlflow_server, postgres

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "PROMOTION.md"
COMMAND = "SAMIF_RECORD=1 python -m pytest -m slow tests/slow/test_promotion_faults.py"
ROUNDS, KILLS = 50, 30
WRITES = 10
"""Points of a promotion with approval at which an operator is killed."""


def test_on_sqlite(tmp_path: Path) -> None:
    campaign("SQLite in a workspace", str(tmp_path))


def test_on_a_server_over_postgresql(tmp_path: Path) -> None:
    with postgres(tmp_path) as database, mlflow_server(tmp_path, database.url) as server:
        campaign("MLflow server over PostgreSQL", server.url)


def campaign(site: str, registry: str) -> None:
    command = [sys.executable, "-m", "tests.support.promotion_campaign", registry]
    words = ["--rounds", str(ROUNDS), "--kills", str(KILLS)]
    ran = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout, ran.stderr
    tallies: dict[str, dict[str, Any]] = json.loads(ran.stdout)
    if os.environ.get("SAMIF_RECORD"):
        record(site, tallies)
    assert {name: tally["examples"] for name, tally in tallies.items() if tally["examples"]} == {}
    assert ran.returncode == 0 and len(tallies) == WRITES + 2
    assert [tally["rounds"] for tally in tallies.values()] == [KILLS] * WRITES + [ROUNDS] * 2


def record(site: str, tallies: dict[str, dict[str, Any]]) -> None:
    """Put a site's section in the place of its last one."""
    text = (
        f"`{COMMAND}` on {os.cpu_count()} cores: two operators at once, and operators killed (SIGKILL) right before "
        "each write of a promotion with approval. *Carried out* and *never begun* state what the next command found; "
        "the next command is in turn the same promotion again, another promotion, or a rollback. A promotion is "
        "refused if its version is live already, or if its approval was given before another version went live."
    )
    head = "\n".join(["# Concurrent and interrupted promotions", "", *textwrap.wrap(text, 120)])
    columns = "lost | doubled | alias and journal disagree | seconds per command (median, worst) |"
    killed = {name: tally for name, tally in tallies.items() if name[0].isdigit()}
    section = [
        site, "",
        f"| two operators at once | rounds | promotions decided | refused | {columns}", "|---" * 8 + "|",
        *(row(name, tally, "decided", "refused") for name, tally in tallies.items() if name not in killed), "",
        f"| killed | times | carried out by the next command | never begun | {columns}", "|---" * 8 + "|",
        *(row(name, tally | {"missing": tally["rounds"] - tally["decided"]}, "decided", "missing")
          for name, tally in killed.items()),
    ]  # fmt: skip
    old = RESULTS.read_text(encoding="utf-8").split("\n## ")[1:] if RESULTS.exists() else []
    sections = {text.partition("\n")[0]: text.strip() for text in (*old, "\n".join(section))}
    RESULTS.write_text("\n\n## ".join([head, *sections.values()]) + "\n", encoding="utf-8")


def row(name: str, tally: dict[str, Any], *keys: str) -> str:
    counts = [tally[key] for key in ("rounds", *keys, "lost", "doubled", "disagreeing")]
    seconds = f"{statistics.median(tally['seconds']):.2f}, {max(tally['seconds']):.2f}"
    return f"| {' | '.join([name, *map(str, counts), seconds])} |"
