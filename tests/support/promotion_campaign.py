"""Concurrent promotions, and promotions killed before every single write, on one registry.

    python -m tests.support.promotion_campaign REGISTRY --rounds 50 --kills 30

REGISTRY is a folder (SQLite) or the address of an MLflow server; prints a JSON object: name of the case -> counts. Exit
status 1 where anything was lost, doubled or left inconsistent. Operators are processes with workspaces of their own: on
a server they share nothing but the server, so no lock file can help them. A killed one gets SIGKILL right before its
n-th write reaches the registry.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from flows.registry.mlflow_client import SETTINGS
from flows.registry.mlflow_store import MlflowStore
from flows.registry.promotion import CHALLENGER, Promotions
from flows.registry.promotion_request import Evidence, Request
from samif.config import Params
from samif.errors import SamifError
from samif.versions.verdict import Verdict

WRITES = (
    "create_registered_model", "create_model_version", "set_registered_model_tag", "set_registered_model_alias",
    "delete_registered_model_alias",
)  # fmt: skip
VERSIONS = 4
AFTER_ALL = "after the last write"


@dataclass(frozen=True)
class Site:
    """A registry: its address (none: SQLite in `root`), a folder for workspaces, and a line of its own."""

    uri: str | None
    root: Path
    line: str

    def promotions(self, operator: str) -> Promotions:
        workspace = self.root / (operator if self.uri else "shared")
        params = Params.model_validate({"line": self.line, "dataset": {"drawn": {}, "base_classes": ["bolt"]}})
        return Promotions(MlflowStore(self.uri, workspace), self.line, params)


def in_child(work: Callable[[], Any]) -> tuple[int, int]:
    """Start `work` in a child process; (pid, pipe from which its JSON result can be read)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    code = 1
    try:
        os.write(write, json.dumps(work()).encode())
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def result(child: tuple[int, int]) -> Any:
    """What a child found; None where it was killed."""
    pid, pipe = child
    text = b""
    while part := os.read(pipe, 65536):
        text += part
    os.close(pipe)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return None
    if os.WEXITSTATUS(status):
        raise AssertionError("an operator ended in an error")
    return json.loads(text)


# What an operator does


def prepare(site: Site) -> None:
    """A classifier with some versions; nothing is live."""
    store = site.promotions("setup")._store
    with store.writing():
        store.make_model(f"{site.line}-classifier")
        for number in range(1, VERSIONS + 1):
            store.client.create_model_version(f"{site.line}-classifier", f"none:/{number}", await_creation_for=0)


def act(site: Site, who: str, target: int | None, approve: str | None, crash_at: int | None) -> dict[str, Any]:
    """Promote `target`, or roll back where it is None; killed right before write number `crash_at`."""
    promotions = site.promotions(who)
    if approve is not None:  # so that every write of a promotion happens
        with promotions._store.writing():
            promotions._store.client.set_registered_model_alias(promotions.model, CHALLENGER, str(target))
    seen = _armed(promotions._store, crash_at)
    started = time.monotonic()
    request = Request(who, "a campaign", approve=approve)
    try:
        if target is None:
            promotions.rollback(request, lambda _: None)
        else:
            promotions.promote(target, request, lambda live: Evidence(_verdict(site, target, live)))
        said = "done"
    except SamifError as error:
        said = str(error)
    if crash_at == len(seen) + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"said": said, "writes": [*seen, AFTER_ALL], "seconds": time.monotonic() - started}


def _verdict(site: Site, target: int, live: int | None) -> Verdict:
    name = f"{site.line}-classifier"
    return Verdict(
        candidate=f"{name}/{target}", candidate_card=f"{target:064d}", champion=f"{name}/{live}" if live else None,
        champion_card=None, policy="campaign", checks=(),
    )  # fmt: skip


def _armed(store: MlflowStore, crash_at: int | None) -> list[str]:
    """Count the writes of this process, and die right before one of them."""
    seen: list[str] = []
    client = store.client
    for method in WRITES:
        original = getattr(client, method)

        @wraps(original)
        def counted(*args: Any, original: Any = original, method: str = method, **named: Any) -> Any:
            if len(seen) + 1 == crash_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(_step(method, args, named))
            return original(*args, **named)

        setattr(client, method, counted)
    return seen


def _step(method: str, args: tuple[Any, ...], named: dict[str, Any]) -> str:
    if method == "create_model_version":
        return f"entry '{named['tags']['kind']}'"
    if method.endswith("alias"):
        return f"{method.split('_')[0]} alias '{args[1]}'"
    return "witness" if method == "set_registered_model_tag" else "journal"


def look(site: Site) -> dict[str, Any]:
    """Journal and aliases, and what is wrong with them."""
    promotions = site.promotions("setup")
    chain, live, alias = promotions.state()
    with promotions._store.reading():
        previous = promotions._aliases().get("previous")
    decisions = [e.id for e in chain.entries if e.kind in ("promote", "rollback")]
    closed = Counter(e.closes for e in chain.entries if e.closes)
    wrong = []
    wrong += [f"alias at {alias}, journal says {live.version}"] if alias != live.version else []
    wrong += [f"previous at {previous}, journal says {live.previous}"] if previous != live.previous else []
    wrong += ["unfinished"] if live.unfinished else []
    wrong += [f"decision {i} closed {closed[i]} times" for i in decisions if closed[i] != 1]
    kinds = Counter(entry.kind for entry in chain.entries)
    decided = {kind: kinds[kind] for kind in ("promote", "rollback", "void", "repair")}
    return {"live": live.version, "previous": live.previous, "wrong": wrong, "decided": decided}


# Cases


@dataclass
class Tally:
    """What a campaign saw."""

    rounds: int = 0
    decided: int = 0
    refused: int = 0
    doubled: int = 0
    lost: int = 0
    disagreeing: int = 0
    seconds: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.doubled or self.lost or self.disagreeing)

    def see(self, wrong: list[str]) -> None:
        self.disagreeing += bool(wrong)
        self.examples += wrong


def race(site: Site, rounds: int) -> Tally:
    """Two operators promote at once: in odd rounds different versions, in even rounds the same one."""
    tally = Tally()
    for number in range(1, rounds + 1):
        before = result(in_child(partial(look, site)))
        others = [v for v in range(1, VERSIONS + 1) if v != before["live"]]
        one = others[number % len(others)]
        two = one if number % 2 == 0 else others[(number + 1) % len(others)]
        children = [
            in_child(partial(act, site, who, target, None, None)) for who, target in (("ann", one), ("bob", two))
        ]
        said = [result(child) for child in children]
        after = result(in_child(partial(look, site)))
        promoted = sum(item["said"] == "done" for item in said)
        entries = after["decided"]["promote"] - before["decided"]["promote"]
        tally.rounds += 1
        tally.decided += entries
        tally.refused += 2 - promoted
        tally.lost += max(0, promoted - entries)
        tally.doubled += max(0, entries - promoted)
        tally.see(after["wrong"])
        expected = 1 if one == two else 2
        if promoted != expected or (one == two and after["live"] != one) or after["live"] not in (one, two):
            tally.see([f"round {number}: {[item['said'] for item in said]}, live {after['live']}"])
        tally.seconds += [item["seconds"] for item in said]
    return tally


def storm(site: Site, rounds: int) -> Tally:
    """Two operators at once, one of them killed before a random write; a third one comes after them."""
    rng, tally = random.Random(0), Tally()
    for number in range(1, rounds + 1):
        before = result(in_child(partial(look, site)))
        one, two, three = rng.sample([v for v in range(1, VERSIONS + 1) if v != before["live"]], 3)
        doomed = in_child(partial(act, site, "ann", one, "carl", rng.randint(1, 9)))
        other = in_child(partial(act, site, "bob", two, None, None))
        killed, said = result(doomed), [result(other)]
        said.append(result(in_child(partial(act, site, "eve", three, None, None))))
        after = result(in_child(partial(look, site)))
        own = after["decided"]["promote"] - before["decided"]["promote"] - 2
        tally.rounds += 1
        tally.decided += 2 + own
        tally.refused += killed is not None and killed["said"] != "done"
        tally.lost += killed is not None and killed["said"] == "done" and not own
        tally.doubled += max(0, own - 1)
        tally.see(after["wrong"])
        if [item["said"] for item in said] != ["done", "done"] or after["live"] != three:
            tally.see([f"round {number}: {[item['said'] for item in said]}, {before} -> {after}"])
        tally.seconds += [item["seconds"] for item in said]
    return tally


def crash(first: Site, per_step: int) -> dict[str, Tally]:
    """Kill an operator before each of its writes, so often each; then look what the next command makes of it."""
    steps: dict[str, Tally] = {}
    _begin(first)
    writes = result(in_child(partial(act, first, "setup", 3, "carl", None)))["writes"]
    for point, step in enumerate(writes, start=1):
        site = replace(first, line=f"{first.line}{point}")  # a journal of its own, as long as in ordinary life
        _begin(site)
        name = f"{point}. {step}" if step == AFTER_ALL else f"{point}. before {step}"
        tally = steps[name] = Tally()
        before = result(in_child(partial(look, site)))
        for number in range(per_step):
            target = next(v for v in range(1, VERSIONS + 1) if v not in (before["live"], before["previous"]))
            killed = result(in_child(partial(act, site, "ann", target, "carl", point)))
            # The next command: the same again, another promotion, or a rollback.
            other = next(v for v in range(1, VERSIONS + 1) if v not in (before["live"], target))
            follow = (target, other, None)[number % 3]
            said = result(in_child(partial(act, site, "bob", follow, None, None)))
            after = result(in_child(partial(look, site)))
            _judge(tally, before, after, killed, target, follow, said["said"])
            tally.seconds.append(said["seconds"])
            before = after
    return steps


def _begin(site: Site) -> None:
    """Versions, and two ordinary promotions, so that every alias exists and every write happens."""
    result(in_child(partial(prepare, site)))
    for target in (1, 2):
        result(in_child(partial(act, site, "setup", target, None, None)))


def _judge(
    tally: Tally, before: dict[str, Any], after: dict[str, Any], killed: Any, target: int, follow: int | None, said: str
) -> None:
    """Whole or not at all: either the killed promotion is in the journal once, or nothing of it is."""
    tally.rounds += 1
    promoted = after["decided"]["promote"] - before["decided"]["promote"]
    rolled = after["decided"]["rollback"] - before["decided"]["rollback"]
    again = follow is not None and said == "done"
    own = promoted - again
    tally.decided += own
    tally.doubled += max(0, own - 1)
    tally.see([*after["wrong"], *(["it was not killed"] if killed is not None else [])])
    if follow == target:
        fine = after["live"] == target and ("is live already" in said) == bool(own)
        tally.lost += after["live"] != target
    elif follow is None:
        fine = said == "done" and rolled == 1 and after["live"] == (before["live"] if own else before["previous"])
    else:
        fine = said == "done" and after["live"] == follow
    if not fine or after["decided"]["void"] != before["decided"]["void"]:
        tally.see([f"own {own}, follow {follow}, said {said!r}, {before} -> {after}"])


def campaign(site: Site, rounds: int, per_step: int) -> dict[str, Tally]:
    """All cases on one registry; the killed ones, named `NUMBER. ...`, only where `per_step` is not 0."""
    tallies = crash(replace(site, line=f"{site.line}-crash"), per_step) if per_step else {}
    result(in_child(partial(prepare, site)))
    tallies["different versions, or the same one"] = race(site, rounds)
    if per_step:
        tallies["one killed before a random write, a third one after them"] = storm(site, rounds)
    return tallies


def main() -> None:
    """Run on one registry and print what was counted; exit status 1 where a count is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", help="folder, or http://HOST:PORT")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--kills", type=int, default=30, help="per write")
    options = parser.parse_args()
    os.environ.update(SETTINGS)
    for module in ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"):
        import_module(module)  # once here, not in every child
    uri = options.registry if "://" in options.registry else None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) if uri else Path(options.registry)
        tallies = campaign(Site(uri, root, f"campaign-{os.getpid()}"), options.rounds, options.kills)
    print(json.dumps({name: vars(tally) for name, tally in tallies.items()}))
    raise SystemExit(0 if all(tally.is_clean for tally in tallies.values()) else 1)


if __name__ == "__main__":
    main()
