"""Sorting of more than memory holds, in a temporary database that SQLite writes to the disk where it becomes large."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager


@contextmanager
def sorted_on_disk(items: Iterable[tuple[int, bytes]]) -> Iterator[Iterator[bytes]]:
    """Values in the order of their keys, which are 64-bit integers; those of one key stay in their order."""
    # A database without a name has no file until its cache is full, and the file is gone when it is closed.
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode=OFF; CREATE TABLE item(key INTEGER, value BLOB); BEGIN;")
        database.executemany("INSERT INTO item VALUES (?, ?)", items)
        yield (value for (value,) in database.execute("SELECT value FROM item ORDER BY key, rowid"))
