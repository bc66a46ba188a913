"""Carry out the requests of the queue: one run for all that wait, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.triggers.queue import Queue, QueuedRequest
from flows.workspace.lock import BusyError
from flows.workspace.run_request import RunRequest, request_of

Run = Callable[[Path, RunRequest], str]
"""Does a run; returns its name for the record."""


def work(root: Path, run: Run) -> bool:
    """Do one run for everything that waits; False if nothing does, or the workspace is busy.

    The request is made again for the state in which the run starts, data included.

    Raises:
        Exception: of the run. Its requests are marked as failed, and the next event about them queues them again. After
            an interruption (KeyboardInterrupt, SystemExit) they wait again.
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
        queue.finish(taken, "waiting", None)
        return False
    except Exception as error:
        queue.finish(taken, "failed", str(error)[:300] or type(error).__name__)
        raise
    except BaseException:
        queue.finish(taken, "waiting", None)
        raise
    queue.finish(taken, "done", name)
    return True


def run_locally(say: Callable[[str], None]) -> Run:
    """`samif run`."""

    def run_workspace(root: Path, request: RunRequest) -> str:
        from flows.pipeline.run import run

        return str(run(root, request, say)["id"])

    return run_workspace


def run_on_cluster(address: str, shared: Sequence[Path], say: Callable[[str], None]) -> Run:
    """`samif submit`."""

    def submit_workspace(root: Path, request: RunRequest) -> str:
        from flows.submit.submit import submit

        # an event that comes again after a failure means another attempt
        return submit(root, request, address, attempt=None, shared=shared, say=say).id

    return submit_workspace


def summary(item: QueuedRequest) -> dict[str, Any]:
    """A request of the queue for a listing."""
    request = item.request
    return {"state": item.state, "at": item.at, "who": request.who, "cause": request.cause, "run": item.run}
