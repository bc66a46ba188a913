"""How long a silent head is waited for; without a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from flows.submit.jobs import HeadLostError, Jobs

PATIENCE = 0.6


class Client:
    """Streams each of `logs` in turn, a line every 0.1 s, and breaks off; then gives the last state."""

    def __init__(self, logs: list[list[str]], states: list[Any]) -> None:
        self.logs, self.states = logs, states

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        if not self.logs:
            raise ConnectionResetError
        for line in self.logs.pop(0):
            await asyncio.sleep(0.1)
            yield line
        if self.logs:
            raise ConnectionResetError

    def get_job_info(self, _: str) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(status=SimpleNamespace(value=state), message="", end_time=1_800_000_000_000)

    def get_job_logs(self, _: str) -> str:
        return "whole"


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], tuple[Any, float]]:
    monkeypatch.setattr("flows.submit.jobs._PAUSE_SECONDS", 0.05)

    def follow(client: Client) -> tuple[Any, float]:
        jobs = Jobs.__new__(Jobs)
        jobs.address, jobs._client = "http://head.example:8265", client  # type: ignore[assignment]
        began = time.monotonic()
        return jobs.follow("job", lambda _: None, PATIENCE), time.monotonic() - began

    return follow


def test_a_log_that_streams_for_long_is_no_silence(follow: Callable[[Client], tuple[Any, float]]) -> None:
    """The connection breaks off after more than the patience; the head answers all the while."""
    lines = [f"{number}\n" for number in range(9)]
    state, seconds = follow(Client([lines, lines, lines], ["SUCCEEDED"]))
    assert state.succeeded and state.ended == 1_800_000_000 and seconds > 2 * PATIENCE


def test_a_state_that_is_answered_is_no_silence(
    follow: Callable[[Client], tuple[Any, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that prints nothing for long: its state is asked for."""
    monkeypatch.setattr("flows.submit.jobs._QUIET_SECONDS", 0.1)

    class Quiet(Client):
        async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
            await asyncio.sleep(1.5 * PATIENCE)
            if self.logs.pop():
                raise ConnectionResetError
            yield "ended\n"

    state, _ = follow(Quiet([[], ["broken off"]], [*["RUNNING"] * 15, "SUCCEEDED"]))
    assert state.succeeded


def test_a_head_that_stays_silent_is_lost(follow: Callable[[Client], tuple[Any, float]]) -> None:
    began = time.monotonic()
    with pytest.raises(HeadLostError, match="has not answered for 1 s: ConnectionResetError"):
        follow(Client([["a\n"] * 3, []], [ConnectionResetError()]))
    assert 0.3 + PATIENCE < time.monotonic() - began < 10 * PATIENCE
