"""The history as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from flows.watch.records import Alarm, Cleared, ImageObserved, Record, Replayed, Unreadable


def history_rows(records: Iterable[Record]) -> list[list[str]]:
    """Rows of time, kind and text; the images of one day between two events share a row."""
    rows: list[list[str]] = []
    counts = {"images": 0, "unreadable": 0}
    first: datetime | None = None
    last: datetime | None = None

    def flush() -> None:
        nonlocal first
        if first is not None and last is not None:
            skipped = f", {counts['unreadable']} unreadable files" if counts["unreadable"] else ""
            text = f"{counts['images']} images until {last:%H:%M}{skipped}"
            rows.append([f"{first:%Y-%m-%d %H:%M}", "stream", text])
        counts.update({"images": 0, "unreadable": 0})
        first = None

    for record in records:
        if isinstance(record, ImageObserved | Unreadable):
            if first is not None and record.time.date() != first.date():
                flush()
            first, last = first or record.time, record.time
            counts["images" if isinstance(record, ImageObserved) else "unreadable"] += 1
        elif isinstance(record, Alarm | Cleared | Replayed):
            flush()
            when = f"{record.time:%Y-%m-%d %H:%M}"
            if isinstance(record, Replayed):
                text = "; ".join(record.differences) or f"as registered, on {record.images} images"
                rows.append([when, "replay", f"{record.model}: {text}"])
            else:
                rows.append([when, "ALARM" if isinstance(record, Alarm) else "cleared", record.sentence])
    flush()
    return rows
