"""The cost of a process: its own time and memory, its children's, its workers'."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.runtime.cost import WORKERS, Cost, UsageMeter, cost_of_process, read_cost, total

CODE = """
import subprocess, sys
from flows.runtime.cost import WORKERS, cost_of_process
before = cost_of_process()
for seconds, memory in {children}:
    code = "import time\\nx = b'1' * %d\\nwhile time.process_time() < %f: pass" % (memory, seconds)
    subprocess.run([sys.executable, "-c", code], check=True)
for usage in {workers}:
    WORKERS.add(usage)
WORKERS.hold_gpus({gpus}, 2.0)
print(before.model_dump_json())
print(cost_of_process().model_dump_json())
"""


@pytest.mark.parametrize(
    ("children", "workers", "gpus", "cpu", "memory"),
    [
        ([], [], 0.0, 0.0, 0.0),
        ([(0.5, 1000)], [], 0.0, 0.5, 0.0),
        ([(0.3, 10), (0.3, 10)], [(2.0, 50.0)], 1.5, 2.6, 0.0),
        ([(0.1, 400_000_000)], [], 0.0, 0.1, 400.0),
        ([], [(1.0, 9000.0), (1.0, 20.0)], 3.0, 2.0, 9000.0),
    ],
)
def test_children_and_workers_count(children: list, workers: list, gpus: float, cpu: float, memory: float) -> None:
    started = time.monotonic()
    code = CODE.format(children=children, workers=workers, gpus=gpus)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    wall = time.monotonic() - started
    before, after = (Cost.model_validate_json(line) for line in out.splitlines())
    assert cpu - 0.05 <= after.cpu_seconds - before.cpu_seconds < cpu + 1.0 + len(children)
    assert after.gpu_seconds == 2.0 * gpus and before.gpu_seconds == 0.0
    assert after.peak_memory_mb >= memory and before.peak_memory_mb < 300.0
    assert before.wall_seconds <= after.wall_seconds <= wall + 0.1
    assert (after.ended - after.began).total_seconds() == pytest.approx(after.wall_seconds, abs=0.01)


def test_the_memory_of_the_program_before_is_not_counted(tmp_path: Path) -> None:
    """A stage is started by `exec` from a large process."""
    script = tmp_path / "stage.py"
    script.write_text("from flows.runtime.cost import cost_of_process; print(cost_of_process().model_dump_json())")
    large = f"x = b'1' * 500_000_000; import os, sys; os.execv(sys.executable, [sys.executable, {str(script)!r}])"
    out = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["peak_memory_mb"] < 300.0


def test_a_meter_reports_each_second_once() -> None:
    meter = UsageMeter()
    first, _ = meter.read()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    second, memory = meter.read()
    assert first > 0.0 and 0.2 <= second < 0.5 and memory > 10.0 and meter.read()[0] < 0.1


def test_costs_add_up_and_the_largest_memory_stays() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    parts = [
        Cost(began=at + timedelta(hours=n), ended=at + timedelta(hours=n + 1), wall_seconds=3600, cpu_seconds=n,
             gpu_seconds=2 * n, peak_memory_mb=100 - n, made="x")
        for n in range(3)
    ]  # fmt: skip
    found = total(parts)
    assert found is not None and total([]) is None
    assert (found.began, found.ended, found.made) == (at, at + timedelta(hours=3), None)
    assert (found.wall_seconds, found.cpu_seconds, found.gpu_seconds, found.peak_memory_mb) == (10800, 3, 6, 100)
    assert Cost.model_validate(found.model_dump(mode="json")) == found  # as a run record holds it
    assert found.line == "10800.0 s, 3.0 CPU seconds, 6.0 GPU seconds, at most 100 MB in one process"


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"wall_seconds": "x"}'])
def test_a_cost_that_is_not_there_or_damaged_is_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    if content is not None:
        path.write_bytes(content)
    assert read_cost(path) is None
    path.write_text(cost_of_process("a" * 64).model_dump_json())
    found = read_cost(path)
    assert found is not None and found.made == "a" * 64
    assert WORKERS.gpu_seconds == 0.0
