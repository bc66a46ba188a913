"""The time that a whole run still takes, from what its stages took when they ran last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TimeLeft:
    """Seconds left in the stages whose time is known, those stages, and the ones that never ran. A stage that is under
    way counts with what is left of it."""

    seconds: float
    known: tuple[str, ...]
    unknown: tuple[str, ...]


def time_left(
    planned: Sequence[str],
    begun: dict[str, float],
    took: Mapping[str, float],
    now: float,
    counted: float | None = None,
) -> TimeLeft:
    """The time left of a run.

    Args:
        planned: stages that the run may have to run, in running order.
        begun: when each stage began that was begun, in their order; those that are planned before the latest one and
            did not begin were up to date.
        took: seconds of each stage when it ran last.
        now: the time, on the clock of `begun`.
        counted: seconds left of the stage under way by its own count, if it has one.
    """
    current = next(reversed(begun), None)
    after = planned.index(current) + 1 if current in planned else 0
    left = {stage: took.get(stage) for stage in planned[after:] if stage not in begun}
    if current is not None:
        before = took.get(current)
        estimates = [] if before is None else [max(0.0, before - (now - begun[current]))]
        estimates += [] if counted is None else [counted]
        left = {current: max(estimates, default=None)} | left
    known = {stage: seconds for stage, seconds in left.items() if seconds is not None}
    return TimeLeft(sum(known.values()), tuple(known), tuple(s for s in left if s not in known))
