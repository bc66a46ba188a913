"""The socket of an HTTP service."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

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


def origin_of(scheme: str, host: str, listener: socket.socket) -> str:
    """Address of a service, for people."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"
