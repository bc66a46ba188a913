"""The socket of an HTTP service."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from flows.runtime.log_format import is_json
from samif.errors import ConfigError


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; `port` 0 takes a free one.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from None
    with listener:
        yield listener


def server_options() -> dict[str, Any]:
    """Options of uvicorn: silent, or a line of JSON per request where logs are JSON."""
    if is_json():
        return {"log_config": None, "log_level": "info", "access_log": True, "server_header": False}
    return {"log_level": "error", "access_log": False, "server_header": False}


def origin_of(scheme: str, host: str, listener: socket.socket) -> str:
    """Address of a service, for people."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"
