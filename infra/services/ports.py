"""Checks that ports are free before anything is started on them."""

from __future__ import annotations

import logging
import socket

import psutil

from infra.services.state import PORTS, State
from samif.errors import ConfigError

logger = logging.getLogger(__name__)


def check_ports(state: State, wanted: set[str], remedy: str) -> None:
    """Check that nothing listens on the ports of these names of `PORTS`.

    Raises:
        ConfigError: a port is in use; names its purpose, and the process where that is visible.
    """
    for name in PORTS:
        port = state.port(name)
        if name in wanted and not _is_free(port):
            raise ConfigError(f"port {port}, for {name}, is taken{_holder(port)}; {remedy}")


def _is_free(port: int) -> bool:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def _holder(port: int) -> str:
    try:
        for item in psutil.net_connections("tcp"):
            if item.status == psutil.CONN_LISTEN and item.laddr.port == port and item.pid:
                return f" by process {item.pid} ({psutil.Process(item.pid).name()})"
    except psutil.Error:
        logger.debug("the process on port %s is not visible", port, exc_info=True)
    return ""
