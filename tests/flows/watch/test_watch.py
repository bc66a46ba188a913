"""`samif watch` end to end: reference, stream, alarms, history, metrics, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

import flows.cli.watch  # noqa: F401  (registers its commands)
from flows.artifacts.kept_answers import Reason
from flows.cli.app import app
from flows.watch.history import History
from flows.watch.records import Alarm, FileIdentity, ImageObserved, Replayed, Unreadable
from flows.watch.stream import new_files
from flows.watch.watcher import Watcher, watch_folder
from samif.errors import SamifError
from tests.support.kept import answer_to, keep
from tests.support.watched_line import REFERENCE, WatchedLine


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads are slower than one for images this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> WatchedLine:
    line = WatchedLine(tmp_path_factory.mktemp("watched") / "line", migrated)
    assert samif(line, "reference").exit_code == 0
    return line


@pytest.fixture
def line(made: WatchedLine, tmp_path: Path) -> WatchedLine:
    """The same line for one test alone."""
    return made.copy(tmp_path / "line")


def samif(line: WatchedLine, *words: str) -> Result:
    return CliRunner().invoke(app, ["watch", *words, "--workspace", str(line.root)])


def poll(line: WatchedLine) -> None:
    result = samif(line, "run", "--images", str(line.camera))
    assert result.exit_code == 0, result.output


def status(line: WatchedLine) -> dict:
    return json.loads(samif(line, "status", "--json").stdout)


def alarms(line: WatchedLine) -> list[Alarm]:
    return [record for record in History(watch_folder(line.layout)).read() if isinstance(record, Alarm)]


# Reference


def test_the_reference_leaves_out_images_with_unknown_classes(line: WatchedLine) -> None:
    result = samif(line, "reference", "--json")
    content = json.loads(result.stdout)
    assert (content["model"], content["images"]) == ("demo-classifier/1", REFERENCE)
    names = {statistic["name"] for statistic in content["statistics"]}
    assert {"objects", "unknown", "margin", "embedding", "class bolt"} <= names


def test_a_reference_of_ordinary_images_leaves_out_broken_ones(line: WatchedLine) -> None:
    line.shoot(21)
    (line.camera / "broken.jpg").write_bytes(b"no image")
    content = json.loads(samif(line, "reference", "--images", str(line.camera), "--json").stdout)
    assert content["images"] == 21 and content["reference"] == status(line)["reference"]
    # it stays valid although there are validation images; without a folder these are used again
    assert json.loads(samif(line, "reference", "--json").stdout)["images"] == REFERENCE


def test_a_reference_of_an_earlier_release_is_made_again(line: WatchedLine) -> None:
    (path,) = (watch_folder(line.layout) / "references").iterdir()
    with safe_open(path, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != "uncertainty"}  # noqa: SIM118
        meta = file.metadata() | {"format": "samif-watch-reference-2"}
    save_file(tensors, path, meta)
    refused = samif(line, "status")
    assert isinstance(refused.exception, SamifError) and "made by an earlier release" in str(refused.exception)
    made = samif(line, "reference")
    assert made.exit_code == 0 and "300 ordinary images of the line or more" in " ".join(made.stdout.split())
    assert status(line)["alarms"] == []


def test_tables_fit_a_narrow_terminal(line: WatchedLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    line.shoot(2)
    poll(line)
    for words in (("status",), ("history",), ("reference",)):
        shown = samif(line, *words).stdout.splitlines()
        assert max(len(row) for row in shown if "demo-classifier" not in row) <= 80


# A stream


def test_a_dark_stream_raises_an_alarm_and_an_undisturbed_one_does_not(line: WatchedLine) -> None:
    line.shoot(20)
    poll(line)
    assert not [alarm for alarm in alarms(line) if alarm.source == "stream"]
    line.shoot(10, start=20, dark=True)
    poll(line)
    found = {alarm.subject: alarm for alarm in alarms(line)}
    assert 20 < found["embedding"].images <= 30
    assert found["embedding"].folder == str(line.camera) and found["embedding"].examples[0] >= "0020.png"
    content = status(line)
    assert "embedding" in {alarm["subject"] for alarm in content["alarms"]}
    assert "re-evaluation" in {item["action"] for item in content["recommendations"]} and content["images"] == 30
    assert "ALARM since" in samif(line, "status").stdout and "embeddings have shifted" in samif(line, "history").stdout


def test_an_alarm_is_raised_once_and_cleared_when_the_light_is_back(line: WatchedLine) -> None:
    line.shoot(8, dark=True)
    line.shoot(20, start=8)
    poll(line)
    poll(line)
    lines = [r.model_dump() for r in History(watch_folder(line.layout)).read()]
    raised = [r["id"] for r in lines if r["kind"] == "alarm" and r["subject"] == "embedding"]
    assert len(raised) == 1 and raised[0] in [r["alarm"] for r in lines if r["kind"] == "cleared"]


def test_an_image_is_observed_once_and_an_overwritten_one_again(line: WatchedLine) -> None:
    (first, *_) = line.shoot(3)
    poll(line)
    poll(line)
    assert status(line)["images"] == 3
    shutil.copy(line.camera / "0002.png", first)
    poll(line)
    assert status(line)["images"] == 4


def test_a_broken_file_is_recorded_and_a_new_one_may_be_incomplete(line: WatchedLine) -> None:
    line.shoot(1)
    for name, age in (("old.png", 3600), ("coming.png", 0)):
        path = line.camera / name
        path.write_bytes((line.camera / "0000.png").read_bytes()[:50])
        os.utime(path, (time.time() - age, time.time() - age))
    content = json.loads(samif(line, "run", "--images", str(line.camera), "--json").stdout)
    assert (content["images"], content["unreadable"], content["incomplete"]) == (1, 1, 1)
    left = [r for r in History(watch_folder(line.layout)).read() if isinstance(r, Unreadable)]
    assert [r.file.name for r in left] == ["old.png"] and "; " in left[0].reason


def test_levels_do_not_depend_on_the_number_of_polls(line: WatchedLine, tmp_path: Path) -> None:
    twin = line.copy(tmp_path / "twin")
    for number in range(4):
        line.shoot(2, start=2 * number)
        poll(line)
        twin.shoot(2, start=2 * number)
    poll(twin)
    levels = [[s["level"] for s in status(each)["statistics"]] for each in (line, twin)]
    assert levels[0] == levels[1]


def test_another_live_version_starts_without_images(line: WatchedLine) -> None:
    line.shoot(8, dark=True)
    poll(line)
    line.add("s1", 3, after="base")
    line.alias("champion", 2)
    poll(line)
    content = status(line)
    assert content["model"] == "demo-classifier/2" and content["images"] == 0
    assert not [alarm for alarm in content["alarms"] if alarm["source"] == "stream"]


# What a service answered


def kept(line: WatchedLine, shot: list[Path], *reasons: Reason) -> Path:
    """A folder of kept answers to these images of the camera, each for these reasons."""
    for path in shot:
        body = path.read_bytes()
        assert keep(line.root / "kept", body, answer_to(body, reasons=reasons))
    return line.root / "kept"


def watched(line: WatchedLine, folder: Path) -> dict:
    return json.loads(samif(line, "run", "--images", str(folder), "--json").stdout)


def test_kept_answers_are_watched_once_and_those_of_a_service_that_goes_on(line: WatchedLine) -> None:
    folder = kept(line, line.shoot(4), "share")
    assert watched(line, folder)["images"] == 4 and watched(line, folder)["images"] == 0
    kept(line, line.shoot(2, start=4), "share", "unknown")
    assert watched(line, folder)["images"] == 2 and status(line)["images"] == 6


@pytest.mark.parametrize("reasons", [("unknown",), ("uncertain",), ("unknown", "uncertain")])
def test_answers_that_were_not_drawn_by_chance_are_passed_over(line: WatchedLine, reasons: tuple[Reason, ...]) -> None:
    kept(line, line.shoot(10, start=20, dark=True), *reasons)
    folder = kept(line, line.shoot(8), "share")
    assert watched(line, folder)["images"] == 8
    assert not [alarm for alarm in alarms(line) if alarm.source == "stream"]


def test_a_dark_service_raises_the_alarm_of_a_dark_camera(line: WatchedLine) -> None:
    assert samif(line, "reference", "--images", str(kept(line, line.shoot(24), "share"))).exit_code == 0
    folder = kept(line, line.shoot(10, start=30, dark=True), "share")
    assert watched(line, folder)["images"] == 34
    assert "embedding" in {alarm.subject for alarm in alarms(line)}


def test_images_that_a_service_removes_are_told(line: WatchedLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing and the reading."""
    folder = kept(line, line.shoot(3), "share")

    def listed(place: Path, known: object) -> list[FileIdentity]:
        found = new_files(place, known)  # type: ignore[arg-type]
        (place / found[0].name).unlink(missing_ok=True)
        return found

    monkeypatch.setattr("flows.watch.watcher.new_files", listed)
    result = watched(line, folder)
    assert (result["images"], result["removed"], result["incomplete"], result["unreadable"]) == (2, 1, 0, 0)


def test_an_image_whose_answer_is_not_written_yet_waits(line: WatchedLine) -> None:
    folder = kept(line, line.shoot(2), "share")
    answer = max((folder / "answers").glob("*.json"))
    content = answer.read_bytes()
    answer.unlink()
    assert watched(line, folder)["images"] == 1
    answer.write_bytes(content)
    assert watched(line, folder)["images"] == 1


# Exports


def test_metrics_are_written_to_a_file_and_served_over_http(line: WatchedLine) -> None:
    line.shoot(8, dark=True)
    poll(line)
    text = (watch_folder(line.layout) / "metrics.prom").read_text()
    assert 'samif_watch_alarm{side="high",subject="embedding"} 1.0' in text and "samif_watch_images 8.0" in text
    watcher = Watcher(line.layout, line.params, line.registry, "demo@champion", None)
    with watcher.history.writing():
        watcher.poll()
    port = watcher.metrics.serve(0)
    assert "samif_watch_images 8.0" in requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text


def test_nothing_is_promoted(line: WatchedLine) -> None:
    before = line.registry.aliases("demo")
    line.shoot(8, dark=True)
    poll(line)
    assert line.registry.aliases("demo") == before


# Errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--images", "/no/such/folder"), "is no folder"),
        (("status", "--model", "demo/9"), "9"),
        (("reference", "--images", "{empty}"), "no usable image"),
    ],
)
def test_bad_input_gets_one_sentence(line: WatchedLine, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    (tmp_path / "empty").mkdir()
    result = samif(line, *(word.format(empty=tmp_path / "empty") for word in words))
    assert isinstance(result.exception, SamifError)
    assert expected in str(result.exception) and "\n" not in str(result.exception)


@pytest.mark.parametrize("words", [("run", "--once", "--every", "5"), ("run", "--metrics-port", "0")])
def test_options_that_do_not_go_together_are_wrong_usage(line: WatchedLine, words: tuple[str, ...]) -> None:
    assert samif(line, *words).exit_code == 2


def test_without_a_live_version_the_sentence_says_how_to_get_one(line: WatchedLine) -> None:
    line.alias("champion", None)
    with pytest.raises(SamifError, match="no version of 'demo' is live; promote one"):
        raise samif(line, "status").exception  # type: ignore[misc]


def test_a_second_watcher_is_refused(line: WatchedLine) -> None:
    with History(watch_folder(line.layout)).writing():
        assert "another 'samif watch run' uses" in str(samif(line, "run").exception)


def test_a_killed_watcher_continues_from_the_history(line: WatchedLine) -> None:
    """After SIGKILL during a stream, the next poll continues where the history ends and gives the same levels."""
    twin = line.copy(line.root.parent / "twin")
    for each in (line, twin):
        each.shoot(12)
        each.shoot(8, start=12, dark=True)
    history = History(watch_folder(line.layout))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "watch", "run"]
    command += ["--images", str(line.camera), "--workspace", str(line.root)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and sum(isinstance(r, ImageObserved) for r in history.read()) < 5:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert 5 <= status(line)["images"] < 20
    poll(line)
    poll(twin)
    names = [r.file.name for r in history.read() if isinstance(r, ImageObserved)]
    assert len(names) == len(set(names)) == 20
    assert [s["level"] for s in status(line)["statistics"]] == [s["level"] for s in status(twin)["statistics"]]
    assert {a.subject for a in alarms(line)} == {a.subject for a in alarms(twin)}


def test_a_replay_is_due_by_the_clock_and_by_the_version(line: WatchedLine) -> None:
    def replays() -> list[str]:
        return [r.model for r in History(watch_folder(line.layout)).read() if isinstance(r, Replayed)]

    poll(line)
    poll(line)
    assert replays() == ["demo-classifier/1"]
    line.set_watch(replay_hours=0.0)
    poll(line)
    line.set_watch()
    line.add("s1", 3, after="base")
    line.alias("champion", 2)
    poll(line)
    assert replays() == ["demo-classifier/1"] * 2 + ["demo-classifier/2"]
