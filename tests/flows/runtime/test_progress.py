"""Progress of a stage: a bar on a terminal, few plain lines elsewhere."""

from __future__ import annotations

from io import StringIO

import pytest

from flows.runtime import progress


def test_plain_progress_has_a_start_an_end_and_few_lines_between(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("flows.runtime.progress.time.monotonic", lambda: now[0])
    out = StringIO()
    with progress.track(10, "images", "embed", out) as tracker:
        for seconds in (4.9, 0.1, 4.9, 0.2):
            now[0] += seconds
            tracker.advance(2)
        tracker.quarantine(1)
        tracker.note("half a batch at a time")
        tracker.advance(2)
    assert out.getvalue().splitlines() == [
        "embed: 0/10 images",
        "embed: 4/10 images, 0.8/s, 8 s left",
        "embed: 8/10 images, 0.8/s, 3 s left",
        "embed: half a batch at a time",
        "embed: 10/10 images in 10.1 s, 1.0/s, 1 quarantined",
    ]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with progress.track(3, "images", "embed", out) as tracker:
        tracker.quarantine(2)
        tracker.note("[half] a batch")
        tracker.advance(3)
    assert "2 quarantined" in out.getvalue()
    assert "[half] a batch" in out.getvalue()
    assert "3/3" in out.getvalue()
    assert "images" in out.getvalue()
    assert "/s" in out.getvalue()
