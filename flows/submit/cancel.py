"""Cancel what is under way in a workspace: jobs that it submitted, and the run on this machine."""

from __future__ import annotations

import time
from pathlib import Path

from flows.pipeline.cancel import cancel_run, what_stands
from flows.runtime.retry import Transient
from flows.submit.jobs import Jobs
from flows.submit.submit import ADDRESS
from flows.workspace.layout import Layout
from samif.errors import ConfigError, ObjectMissing, ServiceUnavailable

POLL_SECONDS = 0.5


def cancel(root: Path, patience: float) -> list[str]:
    """Stop the jobs of a workspace that have not ended, and its run; a sentence each.

    Raises:
        ConfigError: `root` is no workspace, or its run is on another machine.
        ObjectMissing: nothing is under way.
        ServiceUnavailable: a cluster does not answer, or something has not ended in time.
    """
    layout = Layout(root.resolve())
    if not layout.params.exists():
        raise ConfigError(f"{layout.root} is not a workspace (no params.yaml); run 'samif init' to make one")
    said = [
        sentence
        for place in sorted((layout.state / "runs").glob(f"*/{ADDRESS}"))
        if (sentence := _stop(place, patience)) is not None
    ]
    try:
        said.append(what_stands(cancel_run(layout.root, patience)))
    except ObjectMissing:
        if not said:
            raise
    return said


def _stop(place: Path, patience: float) -> str | None:
    """Stop the job whose address is in the file `place`; none where it has ended."""
    name, address = place.parent.name, place.read_text(encoding="utf-8").strip()
    jobs = Jobs(address)
    try:
        state = jobs.find(name)
        stopped = state is not None and not state.has_ended
        if stopped:
            jobs.stop(name)
        deadline = time.monotonic() + patience
        while (state := jobs.find(name)) is not None and not state.has_ended:
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"job {name} was told to stop and has not ended after {patience:.0f} s; cancel again"
                )
            time.sleep(POLL_SECONDS)
    except Transient as error:
        raise ServiceUnavailable(
            f"the cluster at {address} stopped answering ({error}); cancel again when it does"
        ) from None
    place.unlink(missing_ok=True)
    if not stopped:
        return None
    return f"stopped job {name} at {address}: finished stages are kept; 'samif submit --retry-failed' goes on"
