"""The benchmark of scale runs every step: it calls the code of stages with stand-ins of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_every_step_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "--keys", "80", "160"]
    command += ["--folder", str(tmp_path), "--out", str(tmp_path / "table.md")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 9 and all(row.count(" MB") == 2 for row in rows[1:])
