"""Requests that wait for their run, on disk: nothing accepted is lost, and nothing is done twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.http.signature import Delivery
from flows.workspace.layout import Layout
from flows.workspace.run_request import RunRequest
from samif.config import digest
from samif.errors import SamifError

Answer = Literal["queued", "known", "replayed", "full"]
Ending = Literal["done", "failed", "waiting"]
MOST_WAITING = 10_000
_SECONDS = 30.0
_REMEMBERED_SECONDS = 90 * 86400.0
_TABLES = """\
create table if not exists deliveries (id text primary key, at integer not null);
create table if not exists requests (
    key text primary key, state text not null, at real not null, request text not null, run text);
"""


@dataclass(frozen=True)
class Waiting:
    """A request in the queue; `state` is waiting, running, done or failed, `run` names the run that served it."""

    key: str
    state: str
    at: float
    request: RunRequest
    run: str | None


def key_of(request: RunRequest) -> str:
    """What makes two requests one: the cause and the parameters. The run itself moves dvc.lock and with it the state of
    the repository, so these cannot tell a second delivery from a second wish."""
    return digest({"cause": request.cause, "params": request.params})


class Queue:
    """The queue of one workspace, `.samif/triggers.db`; any number of processes may share it.

    Raises:
        SamifError: `root` is no workspace; from every method, when the file cannot be used.
    """

    def __init__(self, root: Path) -> None:
        layout = Layout(root.resolve())
        if not layout.params.exists():
            raise SamifError(f"{layout.root} is not a workspace (no params.yaml); run 'samif init' to make one")
        layout.state.mkdir(exist_ok=True)
        self._path = layout.state / "triggers.db"
        with self._writing() as database:
            database.executescript(_TABLES)

    def accept(self, delivery: Delivery, request: RunRequest, now: float, remembered: float) -> Answer:
        """Take a delivery and its request in one step.

        Args:
            remembered: seconds for which a delivery's id must be kept, longer than its signature holds.

        Returns:
            `queued`; `known` where the same content waits, runs or is done; `replayed` where the delivery was here
            before; `full` where too many wait. A content whose run failed is queued again.
        """
        with self._writing() as database:
            database.execute("delete from deliveries where at < ?", (now - remembered,))
            new = database.execute("insert or ignore into deliveries values (?, ?)", (delivery.id, delivery.at))
            if not new.rowcount:
                return "replayed"
            database.execute("delete from requests where state = 'done' and at < ?", (now - _REMEMBERED_SECONDS,))
            waiting = database.execute("select count(*) from requests where state = 'waiting'").fetchone()[0]
            if waiting >= MOST_WAITING:
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

    def take(self) -> list[Waiting]:
        """All that wait, oldest first, now marked as running: one run serves them all, since it starts after each."""
        with self._writing() as database:
            found = self._rows(database, "where state = 'waiting'")
            database.execute("update requests set state = 'running' where state = 'waiting'")
        return found

    def close(self, taken: Sequence[Waiting], state: Ending, run: str | None) -> None:
        """Say how what was taken ended; `waiting` puts it back."""
        with self._writing() as database:
            rows = [(state, run, item.key) for item in taken]
            database.executemany("update requests set state = ?, run = ? where key = ?", rows)

    def recover(self) -> int:
        """Put back what was running when its process died; how many. Call where no other process works on it."""
        with self._writing() as database:
            return database.execute("update requests set state = 'waiting' where state = 'running'").rowcount

    def all(self) -> list[Waiting]:
        """Every request, oldest first."""
        with self._writing() as database:
            return self._rows(database)

    @staticmethod
    def _rows(database: sqlite3.Connection, where: str = "") -> list[Waiting]:
        rows = database.execute(f"select key, state, at, request, run from requests {where} order by at, rowid")
        return [Waiting(k, state, at, RunRequest.model_validate_json(text), run) for k, state, at, text, run in rows]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_SECONDS, isolation_level=None)) as database:
                database.execute("begin immediate")
                try:
                    yield database
                except BaseException:
                    database.rollback()
                    raise
                database.commit()
        except sqlite3.Error as error:
            raise SamifError(f"the queue {self._path} cannot be used ({error}); restore it or move it away") from None
