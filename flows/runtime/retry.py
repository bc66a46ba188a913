"""Retries of calls that fail for a reason that may pass."""

from __future__ import annotations

import logging

import tenacity
from tenacity.stop import stop_base

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""How long a run retries a server that does not answer: twice what a restart of one takes."""


class Transient(Exception):
    """A failure that may pass, such as a lost connection: worth another attempt."""


def retry_times(attempts: int) -> tenacity.Retrying:
    """Repeats a call while it raises Transient, with growing pauses; the last Transient is raised to the caller."""
    return _retrying(tenacity.stop_after_attempt(attempts))


def retry_for(seconds: float = RETRY_SECONDS) -> tenacity.Retrying:
    """As `retry_times`, for a number of seconds; an attempt that has begun by then is waited for."""
    return _retrying(tenacity.stop_after_delay(seconds))


def _retrying(stop: stop_base) -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Transient),
        stop=stop,
        wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=10.0),
        before_sleep=tenacity.before_sleep_log(logger, logging.INFO),
        reraise=True,
    )
