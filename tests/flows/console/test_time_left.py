"""The time left of a whole run, from the seconds of earlier runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.console.runs import Runs, _Started
from flows.console.time_left import time_left
from flows.pipeline.run import stage_seconds

PLAN = ("dataset", "embed", "train_base", "session@s1")
TOOK = {"dataset": 2.0, "embed": 100.0, "train_base": 30.0}


@pytest.mark.parametrize(
    ("begun", "took", "counted", "seconds", "known", "unknown"),
    [
        ({}, TOOK, None, 132.0, PLAN[:3], PLAN[3:]),
        ({}, {}, None, 0.0, (), PLAN),
        ({"dataset": 999.0}, TOOK, None, 131.0, PLAN[:3], PLAN[3:]),
        ({"dataset": 950.0, "embed": 960.0}, TOOK, None, 90.0, PLAN[1:3], PLAN[3:]),
        ({"embed": 960.0}, TOOK, 200.0, 230.0, PLAN[1:3], PLAN[3:]),  # it is slower than it was
        ({"embed": 700.0}, TOOK, None, 30.0, PLAN[1:3], PLAN[3:]),  # it takes longer than it did
        ({"embed": 700.0}, {"train_base": 30.0}, None, 30.0, PLAN[2:3], ("embed", "session@s1")),
        ({"embed": 700.0}, {"train_base": 30.0}, 40.0, 70.0, PLAN[1:3], PLAN[3:]),
        ({"embed": 700.0, "train_base": 990.0}, TOOK, None, 20.0, PLAN[2:3], PLAN[3:]),
        ({"train_base": 990.0, "session@s1": 995.0}, TOOK, None, 0.0, (), PLAN[3:]),
        ({"train_base": 990.0, "session@s1": 995.0}, TOOK | {"session@s1": 9.0}, None, 4.0, PLAN[3:], ()),
        ({"report": 995.0}, TOOK, None, 132.0, PLAN[:3], ("report", "session@s1")),  # none of the plan
    ],
)
def test_stages_to_come_count_with_what_they_took(
    begun: dict[str, float], took: dict[str, float], counted: float | None, seconds: float, known: Any, unknown: Any
) -> None:
    left = time_left(PLAN, begun, took, 1000.0, counted)
    assert (left.seconds, left.known, left.unknown) == (seconds, tuple(known), tuple(unknown))


def write_record(root: Path, id_: str, started: str, outcome: str = "done", **seconds: tuple[str, float]) -> None:
    stages = [{"stage": name, "how": how, "seconds": value} for name, (how, value) in seconds.items()]
    reasons = [{"stage": name, "will_run": name != "dataset", "reasons": []} for name in PLAN]
    record = {"id": id_, "started": started, "outcome": outcome, "who": "ann", "why": "", "stages": stages}
    path = root / ".samif" / "runs" / f"{id_}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | {"reasons": reasons}))


def test_the_latest_run_that_ran_a_stage_counts(tmp_path: Path) -> None:
    assert stage_seconds(tmp_path) == {}
    write_record(tmp_path, "1", "2026-01-01T00:00:00+00:00", dataset=("ran", 5.0), embed=("ran", 50.0))
    write_record(tmp_path, "2", "2026-01-02T00:00:00+00:00", dataset=("ran", 2.0), embed=("restored", 0.1))
    write_record(tmp_path, "3", "2026-01-03T00:00:00+00:00", "failed")
    assert stage_seconds(tmp_path) == {"dataset": 2.0, "embed": 50.0}


def test_a_run_under_way_tells_what_is_left_of_all_stages(tmp_path: Path) -> None:
    write_record(tmp_path, "1", "2026-01-01T00:00:00+00:00", embed=("ran", 50.0), train_base=("ran", 30.0))
    runs, log = Runs(tmp_path, tmp_path / "state"), tmp_path / "run.log"
    log.write_text("stage embed\nembed train: 3/12 images, 1.5/s, 6 s left\n")
    process: Any = SimpleNamespace(poll=lambda: None)
    runs._started = _Started(process, log, "ann", "", time.time() - 60, took=stage_seconds(tmp_path))
    assert runs.status()["whole"] is None, "the record of an earlier run says nothing of this one"
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    write_record(tmp_path, "2", now, "running")
    runs._started.begun["embed"] = time.time() - 20
    whole = runs.status()["whole"]
    assert whole["unknown"] == ("session@s1",) and whole["known"] == ("embed", "train_base")
    assert 58 <= whole["seconds"] <= 60
    with log.open("a") as file:
        file.write("stage train_base: restored from an earlier run\nstage session@s1\n")
    status = runs.status()
    assert status["stages"] == ["embed", "train_base", "session@s1"]
    assert (status["whole"]["seconds"], status["whole"]["unknown"]) == (0, ("session@s1",))
