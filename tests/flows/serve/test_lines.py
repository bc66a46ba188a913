"""Services beside each other, and replicas that die while they start: whole stacks, so they take a minute."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.served_line import ServedLine, asked, png, service, until

pytestmark = pytest.mark.slow


@pytest.fixture
def lines(tmp_path: Path, migrated: Path) -> tuple[ServedLine, ServedLine]:
    left, right = (ServedLine(tmp_path / name, migrated, line=name) for name in ("left", "right"))
    for line in (left, right):
        line.add("base", 2)
        line.alias("champion", 1)
    return left, right


def test_two_services_on_one_machine_are_strangers(lines: tuple[ServedLine, ServedLine]) -> None:
    left, right = lines
    with service(left, "left@champion") as first:
        assert f"serving left@champion at {first.url}/v1/segment; Ctrl-C ends it" in first.log.read_text()
        with service(right, "right@champion") as second, asked(first) as answers:
            assert requests.get(second.url + "/readyz", timeout=30).json() == {"status": "ready"}
            assert second.segment(png()).json()["model"]["name"] == "right-classifier"
        assert second.process.returncode == 0 and answers
        assert first.segment(png()).json()["model"]["name"] == "left-classifier"
    assert set(answers) == {(200, "left-classifier")}


def test_replicas_that_die_while_they_start_are_started_again_later(lines: tuple[ServedLine, ServedLine]) -> None:
    left, right = lines
    killed, enough = list[int](), threading.Event()

    def kill() -> None:
        while not enough.wait(0.02):
            for process in psutil.Process(os.getpid()).children(recursive=True):
                try:
                    if "ServeReplica:right" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                except psutil.NoSuchProcess:
                    pass

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with service(left, "left@champion", "right@champion", "--workspace", str(right.root)) as both:
            assert (
                "right@champion is not served yet: its replicas end while they start, and are" in both.log.read_text()
            )
            enough.set()
            with asked(both.of("left")) as answers:
                until(lambda: "right@champion is right-classifier/1 since" in both.log.read_text(), 120)
                assert both.of("right").segment(png()).json()["model"]["name"] == "right-classifier"
            assert set(answers) == {(200, "left-classifier")} and len(set(killed)) >= 3
    finally:
        enough.set()
        killer.join()
