"""Logging of the command line: one handler on standard error for the loggers of this project."""

from __future__ import annotations

import logging
import os

from flows.runtime.progress import say
from samif.errors import ConfigError

LOG_VARIABLE = "SAMIF_LOG"
"""Environment variable: the lowest level that is shown. Stages and workers inherit it."""

_LEVELS = ("debug", "info", "warning")
_PACKAGES = ("samif", "flows", "infra")


class _Handler(logging.Handler):
    """Writes lines as `say` does, so they appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say(self.format(record))
        except Exception:
            self.handleError(record)


def set_up_logging(verbose: bool = False) -> None:
    """Show log records from the level of SAMIF_LOG on; without it warnings, or with `verbose` also information.

    Raises:
        ConfigError: SAMIF_LOG has another value than debug, info or warning.
    """
    if verbose:
        os.environ.setdefault(LOG_VARIABLE, "info")
    level = os.environ.get(LOG_VARIABLE) or "warning"
    if level not in _LEVELS:
        raise ConfigError(f"{LOG_VARIABLE} is '{level}'; set it to {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}")
    handler = _Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers = [handler]
