"""Ports that are taken, named before anything is started on them."""

from __future__ import annotations

import socket

import psutil

from infra.services.state import PORTS, State
from samif.errors import SamifError


def check_ports(state: State, wanted: set[str], remedy: str) -> None:
    """See to it that nobody listens on the ports that these names of `PORTS` need.

    Raises:
        SamifError: names the port, what it is for, and who has it where that can be seen.
    """
    for name in PORTS:
        port = state.port(name)
        if name in wanted and not _is_free(port):
            raise SamifError(f"port {port}, for {name}, is taken{_holder(port)}; {remedy}")


def _is_free(port: int) -> bool:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of the past is free
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
        pass
    return ""
