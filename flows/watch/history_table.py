"""The history for people: what was seen when."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from flows.watch.records import Alarm, Cleared, ImageSeen, Record, Replayed, Unreadable


def history_rows(records: Iterable[Record]) -> list[list[str]]:
    """When, what and which: each day's images of a stretch without events are one row."""
    rows: list[list[str]] = []
    counts = {"images": 0, "left out": 0}
    first: datetime | None = None
    last: datetime | None = None

    def flush() -> None:
        nonlocal first
        if first is not None and last is not None:
            out = f", {counts['left out']} files left out" if counts["left out"] else ""
            rows.append([f"{first:%Y-%m-%d %H:%M}", "stream", f"{counts['images']} images until {last:%H:%M}{out}"])
        counts.update({"images": 0, "left out": 0})
        first = None

    for record in records:
        if isinstance(record, ImageSeen | Unreadable):
            if first is not None and record.time.date() != first.date():
                flush()
            first, last = first or record.time, record.time
            counts["images" if isinstance(record, ImageSeen) else "left out"] += 1
        elif isinstance(record, Alarm | Cleared | Replayed):
            flush()
            when = f"{record.time:%Y-%m-%d %H:%M}"
            if isinstance(record, Replayed):
                why = "; ".join(record.complaints) or f"as registered, on {record.images} images"
                rows.append([when, "replay", f"{record.model}: {why}"])
            else:
                rows.append([when, "ALARM" if isinstance(record, Alarm) else "cleared", record.sentence])
    flush()
    return rows
