"""The queue of requests that events make, on disk: an accepted request survives any crash, and is run once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from flows.http.signature import Delivery
from flows.workspace.layout import Layout
from flows.workspace.run_request import RunRequest
from samif.config import digest
from samif.errors import ConfigError, DataError, ServiceUnavailable

Answer = Literal["queued", "known", "replayed", "full"]
Ending = Literal["done", "failed", "waiting"]
MAX_WAITING = 10_000
_LOCK_SECONDS = 30.0
_KEEP_DONE_SECONDS = 90 * 86400.0
_TABLES = """\
create table if not exists deliveries (id text primary key, at integer not null);
create table if not exists requests (
    key text primary key, state text not null, at real not null, request text not null, run text);
"""


@dataclass(frozen=True)
class QueuedRequest:
    """A request in the queue.

    Attributes:
        key: see `key_of`.
        state: waiting, running, done or failed.
        at: Unix seconds when it was accepted.
        run: of a request that is done, the name of its run; of a failed one the error.
    """

    key: str
    state: str
    at: float
    request: RunRequest
    run: str | None


def key_of(request: RunRequest) -> str:
    """Identity of a request in the queue: cause and parameters. A run changes dvc.lock and, with it, the state of the
    repository, so these cannot tell a repeated delivery from a new event."""
    return digest({"cause": request.cause, "params": request.params})


class Queue:
    """The queue of one workspace, `.samif/triggers.db`; any number of processes may share it.

    Raises:
        ConfigError: `root` is no workspace.
        ServiceUnavailable: from every method, when the file cannot be used.
        DataError: from every method that reads requests, when one is of another version of samif.
    """

    def __init__(self, root: Path) -> None:
        layout = Layout(root.resolve())
        if not layout.params.exists():
            raise ConfigError(f"{layout.root} is not a workspace (no params.yaml); run 'samif init' to make one")
        layout.state.mkdir(exist_ok=True)
        self._path = layout.state / "triggers.db"
        with self._writing() as database:
            database.executescript(_TABLES)

    def accept(self, delivery: Delivery, request: RunRequest, now: float, remembered: float) -> Answer:
        """Take a delivery and its request in one step.

        Args:
            remembered: seconds for which a delivery's id must be kept, longer than its signature is valid.

        Returns:
            `queued`; `known` where the same content waits, runs or is done; `replayed` where the delivery was here
            before; `full` where too many wait. A content whose run failed is queued again.
        """
        with self._writing() as database:
            database.execute("delete from deliveries where at < ?", (now - remembered,))
            new = database.execute("insert or ignore into deliveries values (?, ?)", (delivery.id, delivery.at))
            if not new.rowcount:
                return "replayed"
            database.execute("delete from requests where state = 'done' and at < ?", (now - _KEEP_DONE_SECONDS,))
            waiting = database.execute("select count(*) from requests where state = 'waiting'").fetchone()[0]
            if waiting >= MAX_WAITING:
                database.execute("delete from deliveries where id = ?", (delivery.id,))
                return "full"
            row = (key_of(request), now, request.model_dump_json())
            done = database.execute(
                "insert into requests (key, state, at, request) values (?, 'waiting', ?, ?) "
                "on conflict (key) do update set state = 'waiting', at = excluded.at, request = excluded.request "
                "where state = 'failed'",
                row,
            )
            return "queued" if done.rowcount else "known"

    def take(self) -> list[QueuedRequest]:
        """All that wait, oldest first, now marked as running: one run serves them all, since it starts after each."""
        with self._writing() as database:
            found = self._rows(database, "where state = 'waiting'")
            database.execute("update requests set state = 'running' where state = 'waiting'")
        return found

    def finish(self, taken: Sequence[QueuedRequest], state: Ending, run: str | None) -> None:
        """Record how the requests that were taken ended; `waiting` puts them back."""
        with self._writing() as database:
            rows = [(state, run, item.key) for item in taken]
            database.executemany("update requests set state = ?, run = ? where key = ?", rows)

    def recover(self) -> int:
        """Put back requests whose run was killed; how many. Call where no other process runs them."""
        with self._writing() as database:
            return database.execute("update requests set state = 'waiting' where state = 'running'").rowcount

    def all(self) -> list[QueuedRequest]:
        """Every request, oldest first."""
        with self._writing() as database:
            return self._rows(database)

    def _rows(self, database: sqlite3.Connection, where: str = "") -> list[QueuedRequest]:
        rows = database.execute(f"select key, state, at, request, run from requests {where} order by at, rowid")
        try:
            return [
                QueuedRequest(key, state, at, RunRequest.model_validate_json(text), run)
                for key, state, at, text, run in rows
            ]
        except ValidationError:
            raise DataError(
                f"the queue {self._path} holds a request of another version of samif; finish it with that version, or "
                "move the file away"
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_LOCK_SECONDS, isolation_level=None)) as database:
                database.execute("begin immediate")
                try:
                    yield database
                except BaseException:
                    database.rollback()
                    raise
                database.commit()
        except sqlite3.Error as error:
            raise ServiceUnavailable(
                f"the queue {self._path} cannot be used ({error}); restore it or move it away"
            ) from None
