"""Which versions of a line somebody may still need, with the reason for each: a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.registry.live_state import Live


@dataclass(frozen=True)
class Retention:
    """What is kept besides what is live.

    Attributes:
        days: versions that a run registered, or had again, in so many days.
        champions: the last so many versions that were live.
        live_days: versions that were live in so many days.
    """

    days: float = 30.0
    champions: int = 5
    live_days: float = 90.0


@dataclass(frozen=True)
class Candidate:
    """A registered classifier version.

    Attributes:
        after: name of the classifier that its session was added to; none for a base classifier.
        decoder: number of its decoder version; none where it was not registered by samif.
        seen: when a run last registered it or had it again.
    """

    number: int
    session: str
    after: str | None
    decoder: int | None
    seen: datetime


def reasons_to_keep(
    versions: Sequence[Candidate], aliases: Mapping[str, int], live: Live, retention: Retention, now: datetime
) -> dict[int, str]:
    """Version number -> why it is kept; whatever is not named may go.

    A version whose removal was begun is kept for an alias only.
    """
    kept: dict[int, str] = {}

    def keep(number: int | None, reason: str) -> None:
        if number is not None and number not in live.pruned:
            kept.setdefault(number, reason)

    for alias, number in sorted(aliases.items()):
        kept.setdefault(number, f"alias {alias}")
    keep(live.version, "live by the journal")
    keep(live.unfinished.version if live.unfinished else None, "its promotion is not finished")
    for entry in live.approvals:
        keep(entry.version, f"approved by {entry.approved_by}")
    was_live: list[int] = []
    for term in reversed(live.terms):
        if term.version not in was_live:
            was_live.append(term.version)
        if term.until is None or now - term.until < timedelta(days=retention.live_days):
            keep(term.version, f"live in the last {retention.live_days:g} days")
    for number in was_live[: retention.champions]:
        keep(number, f"one of the last {retention.champions} that were live")
    for version in versions:
        if version.decoder is None:
            keep(version.number, "not registered by samif")
        elif now - version.seen < timedelta(days=retention.days):
            keep(version.number, f"registered in the last {retention.days:g} days")
    if versions:
        # MLflow would give the number of a removed last version to the next one
        keep(max(version.number for version in versions), "the newest version")
    for version in sorted(versions, key=lambda version: version.number, reverse=True):
        if version.number in kept and (before := _built_on(version, versions)) is not None:
            keep(before.number, f"{version.number} was built on it")
    return {version.number: kept[version.number] for version in versions if version.number in kept}


def _built_on(version: Candidate, versions: Sequence[Candidate]) -> Candidate | None:
    """The version that a session was added to: the newest one before it of that name and decoder."""
    before = [
        found
        for found in versions
        if found.number < version.number and (found.session, found.decoder) == (version.after, version.decoder)
    ]
    return max(before, key=lambda found: found.number, default=None)
