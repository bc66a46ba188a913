"""Start the service on this machine, say what happens to it, and end it cleanly."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from flows.runtime.ray_cluster import Cluster, ray_cluster
from flows.serve.replica_status import read_replicas
from flows.serve.settings import ReplicaCount, Settings
from samif.errors import ConfigError, ServiceUnavailable

WATCH_SECONDS = 0.25
START_SECONDS = 30.0
"""How long the others wait for a line that takes its time to load, and again for one that takes it to start."""
AGAIN_SECONDS = 30.0
"""How long an application whose processes died while they started is left alone."""

Say = Callable[[str], None]


@contextmanager
def serving(
    lines: Sequence[Settings], host: str, port: int, replicas: ReplicaCount, say: Say
) -> Iterator[Applications]:
    """The service, ready to answer at host:port, for the length of the block.

    It runs on a Ray of its own, whatever RAY_ADDRESS says: on a shared one the next service would take its place, and
    the first to end would end both.

    Args:
        lines: each becomes an application with replicas of its own. Beside others, one that cannot be loaded is told
            and waited for; alone it is refused.
        replicas: of each line.

    Raises:
        SamifError: no line can be loaded, or the port is taken.
    """
    lines = loadable(lines, say)
    check_reachable(host, port)
    os.environ.pop("RAY_ADDRESS", None)
    most = replicas.most * len(lines)
    with ray_cluster(None, most) as cluster:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
            applications = Applications(lines, replicas, share(cluster, most), say)
            applications.start()
            yield applications
        except RuntimeError as error:
            raise ServiceUnavailable(
                f"the service did not start ({' '.join(str(error).split())[:300]}); try 'samif doctor' and "
                f"'samif predict --model {lines[0].ref}' on this machine"
            ) from None
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


class Applications:
    """The lines of a service as applications of Ray Serve.

    Args:
        shares: CPUs and GPUs of each replica.
    """

    def __init__(self, lines: Sequence[Settings], replicas: ReplicaCount, shares: tuple[int, float], say: Say) -> None:
        self.lines = lines
        self._replicas, self._shares, self._say = replicas, shares, say
        self._waited: list[Settings] = []

    def start(self) -> None:
        """Start all, and wait until each runs or has failed; what fails or takes its time beside others is told.

        Raises:
            RuntimeError: none of them runs.
        """
        self._deploy(self.lines)
        until = time.monotonic() + START_SECONDS
        while (why := self._ended()).keys() < {line.name for line in self.lines}:
            if "" in why.values() and time.monotonic() >= until:
                break
            time.sleep(0.1)
        if "" not in why.values():
            raise RuntimeError(why[self.lines[0].name])
        self._waited = [line for line in self.lines if why.get(line.name) != ""]
        for line in self._waited:
            if line.name not in why:
                self._say(f"{line.ref} is not served yet: its replicas are still starting")
                continue
            self._say(
                f"{line.ref} is not served yet: its replicas end while they start, and are started again every "
                f"{AGAIN_SECONDS:g} seconds ({why[line.name][-300:]})"
            )

    def start_again(self) -> None:
        """Start again what has failed. Returns at once; whoever watches the replicas sees what comes of it."""
        why = self._ended() if self._waited else {}
        self._waited = [line for line in self._waited if why.get(line.name) != ""]
        if again := [line for line in self._waited if why.get(line.name)]:
            self._deploy(again)

    def _deploy(self, lines: Sequence[Settings]) -> None:
        from ray import serve

        from flows.serve.replica import deployment

        serve.run_many(
            [serve.RunTarget(deployment(line, self._replicas, *self._shares), line.name, line.route) for line in lines],
            wait_for_applications_running=False,
        )

    def _ended(self) -> dict[str, str]:
        """Names of the applications that are no longer starting, and why they failed; nothing where they run."""
        from ray import serve

        ended = {}
        for name, found in serve.status().applications.items():
            if found.status == "RUNNING":
                ended[name] = ""
            elif found.status == "DEPLOY_FAILED":
                why = [found.message, *(part.message for part in found.deployments.values())]
                ended[name] = " ".join(" ".join(why).split())
        return ended


def share(cluster: Cluster, replicas: int) -> tuple[int, float]:
    """CPUs and GPUs of each replica, where so many must run at once: replicas that outnumber the GPUs share them."""
    together = math.ceil(replicas / cluster.workers)
    return max(1, cluster.cpus_per_worker // together), cluster.gpus_per_worker / together


def watch(applications: Applications, say: Say, stop: threading.Event) -> None:
    """Say in one sentence each what the replicas report, until `stop` is set."""
    told, seen = set[str](), dict[str, tuple[int, str]]()
    again = time.monotonic() + AGAIN_SECONDS
    while not stop.wait(WATCH_SECONDS):
        views = [(line, view) for line in applications.lines for view in read_replicas(line.state)]
        for ended in seen.keys() - {view["id"] for _, view in views}:
            pid, ref = seen.pop(ended)
            say(f"replica {pid} of {ref} has ended; another takes its place")
        for line, view in views:
            seen[view["id"]] = view["pid"], line.ref
            for sentence in news(view):
                key = f"{view['id']} {sentence}"
                if key not in told:
                    told.add(key)
                    say(f"replica {view['pid']}: {sentence}")
        if time.monotonic() >= again:
            applications.start_again()
            again = time.monotonic() + AGAIN_SECONDS


def news(view: dict[str, Any]) -> list[str]:
    """What there is to say about a replica's state."""
    said = []
    canary = view["canary"]
    for slot in filter(None, (view["champion"], view["challenger"], canary and canary["slot"])):
        live, failure = slot["live"], slot["failure"]
        if slot["unconfirmed"] is not None:
            said.append(slot["unconfirmed"])
        elif live is not None:
            number = "" if live["version"] is None else f"/{live['version']}"
            said.append(f"{slot['ref']} is {live['name']}{number} since {slot['since'][:19]}")
        if failure is not None:
            said.append(f"{failure['version']} was refused at {failure['at'][:19]}: {failure['why']}")
        if slot["registry"] is not None:
            said.append(f"{slot['ref']} cannot be followed: {slot['registry']}")
    if canary is not None and canary["state"] != "running" and canary["why"] is not None:
        model = canary["model"]
        name = f"{model['name']}/{model['version']} is rolled back" if model else "no canary answers"
        said.append(f"{name}: {canary['why']}")
    if view["keep_problem"] is not None:
        said.append(f"answers of {view['champion']['ref']} are not kept: {view['keep_problem']}")
    return said


def loadable(lines: Sequence[Settings], say: Say) -> list[Settings]:
    """The lines, each tried once here: what is wrong is said in a sentence, and replicas find everything fetched and
    verified. A version that was named without an alias is the one of now. A line whose registry is away, and of which
    nothing was served here before, is waited for.

    Raises:
        ServiceUnavailable: none can be loaded.
    """
    from flows.runtime.system_errors import sentence_of

    tried, refused = list(lines), list[str]()
    for i, line in enumerate(lines):
        line.state.mkdir(parents=True, exist_ok=True)
        try:
            tried[i] = _tried(line) if len(lines) == 1 else _within(START_SECONDS, partial(_tried, line))
            continue
        except TimeoutError:
            sentence = f"it is still loading after {START_SECONDS:g} seconds"
        except Exception as error:
            sentence = sentence_of(error)
            if not isinstance(error, ServiceUnavailable):
                refused.append(sentence if len(lines) == 1 else f"{line.ref}: {sentence}")
        if len(lines) > 1 or not refused:
            tried[i] = replace(line, wait_for_model=True)
            say(f"{line.ref} is not served yet, but tried again until it can be: {sentence}")
    if len(refused) == len(lines):
        raise ServiceUnavailable("; ".join(refused))
    return tried


def _tried(line: Settings) -> Settings:
    from flows.serve.model_slot import ModelSlot
    from flows.serve.versions import Source

    slot = ModelSlot(Source(line), line.ref)
    slot.start()
    live = slot.state.live
    assert live is not None
    return replace(line, ref=live.title) if "@" not in line.ref and live.number is not None else line


def _within(seconds: float, call: Callable[[], Settings]) -> Settings:
    """What `call` gives or raises; after so many seconds TimeoutError, and it is left to itself."""
    done: Future[Settings] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result(seconds)


def check_reachable(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port"
            ) from None
