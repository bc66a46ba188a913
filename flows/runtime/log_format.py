"""Log lines as JSON, one object each, and what every line of a process says besides: its run, stage and version."""

from __future__ import annotations

import json
import logging
import os
import traceback
from datetime import UTC, datetime
from typing import Any

from samif.errors import ConfigError

FORMAT_VARIABLE = "SAMIF_LOG_FORMAT"
"""Environment variable: text or json. Stages and workers inherit it."""
RUN_ID_VARIABLE = "SAMIF_RUN_ID"
"""Environment variable of a stage: id of the run that it belongs to."""

_FORMATS = ("text", "json")
_context: dict[str, str] = {}


def check_format() -> None:
    """Raise ConfigError where SAMIF_LOG_FORMAT is neither text nor json."""
    if (given := os.environ.get(FORMAT_VARIABLE) or "text") not in _FORMATS:
        raise ConfigError(f"{FORMAT_VARIABLE} is '{given}'; set it to {' or '.join(_FORMATS)}")


def is_json() -> bool:
    """Whether lines for standard error are JSON."""
    return os.environ.get(FORMAT_VARIABLE) == "json"


def add_context(**facts: str) -> None:
    """From now on, each line of this process says so: `stage`, or the model `version` that is served."""
    _context.update(facts)


def json_line(message: str, level: str = "INFO", logger: str = "samif", at: float | None = None, **more: Any) -> str:
    """{"time", "level", "logger", "message", "run", "stage", "version", ...}; what is not known is left out.

    Args:
        at: Unix seconds; none means now.
    """
    time = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    content: dict[str, Any] = {"time": time.isoformat(timespec="milliseconds"), "level": level, "logger": logger}
    content["message"] = message
    if run := os.environ.get(RUN_ID_VARIABLE):
        content["run"] = run
    return json.dumps(content | _context | more, ensure_ascii=False, default=str)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, a traceback in `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        more = {}
        if record.exc_info and record.exc_info[1] is not None:
            more["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json_line(record.getMessage(), record.levelname, record.name, record.created, **more)
