"""Carry out what waits in the queue: one run for all of it, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.triggers.queue import Queue, Waiting
from flows.workspace.lock import BusyError
from flows.workspace.run_request import RunRequest, request_of
from samif.errors import SamifError

Run = Callable[[Path, RunRequest], str]
"""Does a run; returns its name for the record."""


def work(root: Path, run: Run) -> bool:
    """Do one run for everything that waits; False where nothing does, or the workspace is busy.

    The request is made again for the state in which the run starts: what waited was asked for before.

    Raises:
        SamifError: the run failed; what waited is marked so, and comes back with the next event about it.
    """
    queue = Queue(root)
    taken = queue.take()
    if not taken:
        return False
    first, more = taken[0].request, len(taken) - 1
    why = first.why + (f" (and {more} more)" if more else "")
    try:
        name = run(root, request_of(root, first.who, why, first.cause))
    except BusyError:
        queue.close(taken, "waiting", None)
        return False
    except SamifError as error:
        queue.close(taken, "failed", str(error)[:300])
        raise
    except BaseException:
        queue.close(taken, "waiting", None)
        raise
    queue.close(taken, "done", name)
    return True


def run_here(say: Callable[[str], None]) -> Run:
    """`samif run`."""

    def here(root: Path, request: RunRequest) -> str:
        from flows.pipeline.run import run

        return str(run(root, request, say)["id"])

    return here


def run_on(address: str, shared: Sequence[Path], say: Callable[[str], None]) -> Run:
    """`samif submit`."""

    def there(root: Path, request: RunRequest) -> str:
        from flows.submit.submit import submit

        # an event that comes again after a failure means another attempt
        return submit(root, request, address, attempt=None, shared=shared, say=say).id

    return there


def summary(item: Waiting) -> dict[str, Any]:
    """A request of the queue for a listing."""
    request = item.request
    return {"state": item.state, "at": item.at, "who": request.who, "cause": request.cause, "run": item.run}
