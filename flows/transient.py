"""Failures that may pass, and how long to wait for that."""

from __future__ import annotations

import tenacity


class Transient(Exception):
    """A failure that may pass, such as a lost connection: worth another attempt."""


def persistently(attempts: int) -> tenacity.Retrying:
    """Repeats a call while it raises Transient, waiting longer each time; the last Transient goes to the caller."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Transient),
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=10.0),
        reraise=True,
    )
