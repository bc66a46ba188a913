"""Failures that may pass, and how long to wait for that."""

from __future__ import annotations

import tenacity
from tenacity.stop import stop_base

PATIENCE_SECONDS = 60.0
"""How long a run waits for a server that is away: twice what a restart of one takes."""


class Transient(Exception):
    """A failure that may pass, such as a lost connection: worth another attempt."""


def persistently(attempts: int) -> tenacity.Retrying:
    """Repeats a call while it raises Transient, waiting longer each time; the last Transient goes to the caller."""
    return _repeating(tenacity.stop_after_attempt(attempts))


def patiently(seconds: float = PATIENCE_SECONDS) -> tenacity.Retrying:
    """As `persistently`, but for so long; an attempt that has begun by then is waited for."""
    return _repeating(tenacity.stop_after_delay(seconds))


def _repeating(stop: stop_base) -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Transient),
        stop=stop,
        wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=10.0),
        reraise=True,
    )
