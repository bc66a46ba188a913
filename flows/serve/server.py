"""Start the service on this machine, say what happens to it, and end it cleanly."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flows.cluster import ray_cluster
from flows.serve.settings import Settings
from samif.errors import SamifError

WATCH_SECONDS = 0.25


@contextmanager
def serving(settings: Settings, host: str, port: int, replicas: int, address: str | None = None) -> Iterator[None]:
    """The service, ready to answer at host:port, for the length of the block.

    Raises:
        SamifError: the model cannot be loaded, or the port is taken.
    """
    from flows.serve.versions import Source

    settings.state.mkdir(parents=True, exist_ok=True)
    # Here first, so that what is wrong is said in a sentence, and replicas find everything fetched and verified.
    source = Source(settings)
    name, number = source.resolve(settings.ref)
    source.load(name, number, None)
    if "@" not in settings.ref and number is not None:
        settings = replace(settings, ref=f"{name}/{number}")  # a newer version does not go live by being registered
    _knock(host, port)
    with ray_cluster(address, replicas) as cluster:
        from ray import serve

        from flows.serve.metrics import environment
        from flows.serve.replica import deployment

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
            app = deployment(
                settings, replicas, cluster.cpus_per_worker, cluster.gpus_per_worker, environment(settings.state)
            )
            serve.run(app, name="samif", route_prefix="/")
            yield
        except RuntimeError as error:
            raise SamifError(
                f"the service did not start ({' '.join(str(error).split())[:300]}); try 'samif doctor' and "
                f"'samif predict --model {settings.ref}' on this machine"
            ) from None
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


def watch(settings: Settings, say: Callable[[str], None], stop: threading.Event) -> None:
    """Say in one sentence each what the replicas report, until `stop` is set."""
    from flows.serve.board import Board

    board, told = Board(settings.state), set[str]()
    while not stop.wait(WATCH_SECONDS):
        for view in board.read():
            for sentence in news(view):
                key = f"{view['pid']} {sentence}"
                if key not in told:
                    told.add(key)
                    say(f"replica {view['pid']}: {sentence}")


def news(view: dict[str, Any]) -> list[str]:
    """What there is to say about a replica's state."""
    said = []
    for slot in filter(None, (view["champion"], view["challenger"])):
        live, failure = slot["live"], slot["failure"]
        if live is not None:
            number = "" if live["version"] is None else f"/{live['version']}"
            said.append(f"{slot['ref']} is {live['name']}{number} since {slot['since'][:19]}")
        if failure is not None:
            said.append(f"{failure['version']} was refused at {failure['at'][:19]}: {failure['why']}")
        if slot["registry"] is not None:
            said.append(f"{slot['ref']} cannot be followed: {slot['registry']}")
    return said


def _knock(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SamifError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from None
