"""Logging of the command line: one handler on standard error for the loggers of this project."""

from __future__ import annotations

import logging
import os

from flows.runtime.log_format import JsonFormatter, check_format, is_json
from flows.runtime.progress import write_line
from samif.errors import ConfigError

LOG_VARIABLE = "SAMIF_LOG"
"""Environment variable: the lowest level that is shown. Stages and workers inherit it."""

_LEVELS = ("debug", "info", "warning")
_PACKAGES = ("samif", "flows", "infra")


class _Handler(logging.Handler):
    """Writes lines as `say` does, so they appear above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record))
        except Exception:
            self.handleError(record)


def set_up_logging(verbose: bool = False) -> None:
    """Show log records from the level of SAMIF_LOG on; without it warnings, or with `verbose` also information.

    Raises:
        ConfigError: SAMIF_LOG has another value than debug, info or warning, or SAMIF_LOG_FORMAT than text or json.
    """
    check_format()
    if verbose:
        os.environ.setdefault(LOG_VARIABLE, "info")
    level = os.environ.get(LOG_VARIABLE) or "warning"
    if level not in _LEVELS:
        raise ConfigError(f"{LOG_VARIABLE} is '{level}'; set it to {', '.join(_LEVELS[:-1])} or {_LEVELS[-1]}")
    handler = _Handler()
    handler.setFormatter(
        JsonFormatter() if is_json() else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    if is_json():
        os.environ.setdefault("RAY_SERVE_LOG_ENCODING", "JSON")
        # whoever asks for a line per event wants the requests of the services too
        access = logging.getLogger("uvicorn")
        access.handlers, access.propagate = [handler], False
        access.setLevel(logging.INFO)
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level.upper())
        logger.handlers = [handler]
