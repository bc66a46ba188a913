"""A run that is killed leaves nothing at work that the next one would meet."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil

from tests.support.console import SAMIF
from tests.support.drawn import drawn_workspace


def at_work(run: psutil.Popen) -> list[psutil.Process]:
    """The processes below the run, once a stage is among them."""
    for _ in range(600):
        below: list[psutil.Process] = run.children(recursive=True)
        if any("stage" in process.cmdline() for process in below):
            return below
        time.sleep(0.1)
    raise AssertionError("no stage was started")


def test_a_run_that_is_killed_takes_its_stage_along(tmp_path: Path) -> None:
    root = drawn_workspace(tmp_path, {}, base_images=400, mixed_images=4, val_images=4)  # it draws for a while
    with (root / "said.txt").open("w") as said:
        run = psutil.Popen([str(SAMIF), "run"], cwd=root, stdout=said, stderr=subprocess.STDOUT)
    below = at_work(run)
    while not any((root / "artifacts").rglob("*.png")) and not any((root / "artifacts").rglob("*.jpg")):
        assert run.poll() is None, (root / "said.txt").read_text()
        time.sleep(0.05)  # now it draws
    run.kill()
    run.wait()
    gone, alive = psutil.wait_procs(below, timeout=10)
    for process in alive:
        process.kill()
    assert gone and not alive
    assert "Traceback" not in (root / "said.txt").read_text()
