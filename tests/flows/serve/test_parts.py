"""The parts of the service that need no service: token, queue, alias poller, what a disagreement is."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.http.auth import VARIABLE, bearer_token, digest_of, find_token, is_loopback, matches
from flows.http.errors import HttpError
from flows.registry.last_served import LastServed
from flows.runtime.ray_cluster import fit
from flows.serve.alias_poller import AliasPoller
from flows.serve.disagreement import disagreements
from flows.serve.limits import Admission
from flows.serve.model_slot import NOTE_SECONDS, ModelSlot
from flows.serve.replica_status import ReplicaStatus, is_running, read_replicas
from flows.serve.routes import Route, routes_of
from flows.serve.server import loadable, share
from flows.serve.settings import Settings
from flows.serve.versions import Source, Version
from samif.errors import ConfigError, IntegrityError, ObjectMissing, SamifError, ServiceUnavailable
from samif.inference.segment import Instances
from samif.masks.rle import boxes
from tests.support.handmade import rectangle, rle

# The token


def test_a_token_is_made_once_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    made = tmp_path / "new" / "serve.token"
    token, written = find_token(None, made, "127.0.0.1", True)
    assert written == made and made.read_text().strip() == token and len(token or "") >= 32
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert find_token(None, made, "127.0.0.1", True)[0] != token


def test_a_given_token_is_taken_from_a_file_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "e" * 20)
    (tmp_path / "t").write_text("f" * 20 + "\n")
    assert find_token(tmp_path / "t", tmp_path / "made", "::1", True) == ("f" * 20, None)
    assert find_token(None, tmp_path / "made", "0.0.0.0", True) == ("e" * 20, None)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "short", "with a space in it, long", "ü" * 20])
def test_a_weak_token_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t").write_text(content)
    with pytest.raises(SamifError, match="16 or more plain characters; make a longer one"):
        find_token(tmp_path / "t", tmp_path / "made", "127.0.0.1", True)
    with pytest.raises(SamifError, match="cannot be read"):
        find_token(tmp_path / "gone", tmp_path / "made", "127.0.0.1", True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "camera.local"])
def test_beyond_loopback_a_token_is_a_must(tmp_path: Path, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SamifError, match="leave out --no-token"):
        find_token(None, tmp_path / "made", host, False)


def test_no_token_is_for_loopback(tmp_path: Path) -> None:
    assert find_token(None, tmp_path / "made", "localhost", False) == (None, None)
    assert matches(None, None) and matches("x", None)
    assert matches("x", digest_of("x")) and not matches("y", digest_of("x")) and not matches(None, digest_of("x"))


def test_two_services_at_one_port_do_not_take_each_other_s_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    made = tmp_path / "serve-8090.token"
    made.write_text("of a service that was killed")
    with bearer_token(None, made, "127.0.0.1", True) as (token, written):
        with (
            pytest.raises(SamifError, match=r"keeps its token in .*8090.token; choose another --port"),
            bearer_token(None, made, "127.0.0.2", True),
        ):
            pass
        assert written == made and made.read_text().strip() == token
        with bearer_token(None, made, "127.0.0.1", False) as nothing:
            assert nothing == (None, None)
    assert not made.exists()


# The lines

A, B = Path("/lines/a"), Path("/lines/b")


@pytest.mark.parametrize(
    ("refs", "roots", "shadows", "expected"),
    [
        (["a@champion"], [A], [], [Route("a@champion", A)]),
        (["models/x"], [A], ["b@challenger"], [Route("models/x", A, "b@challenger", "samif", "/")]),
        (
            ["a@champion", "b-classifier/3"], [A], ["b@challenger"],
            [Route("a@champion", A, None, "a", "/a"), Route("b-classifier/3", A, "b@challenger", "b", "/b")],
        ),
        (
            ["b@champion", "a@champion"], [B, A], ["a@x", "b@y"],
            [Route("b@champion", B, "b@y", "b", "/b"), Route("a@champion", A, "a@x", "a", "/a")],
        ),
    ],
)  # fmt: skip
def test_lines_have_names_and_paths_of_their_own(
    refs: list[str], roots: list[Path], shadows: list[str], expected: list[Route]
) -> None:
    assert routes_of(refs, roots, shadows) == expected


@pytest.mark.parametrize(
    ("refs", "roots", "shadows", "sentence"),
    [
        (["a@champion", "a-classifier/2"], [A], [], "line 'a' has two models, a@champion and a-classifier/2; leave"),
        (["a@champion", "b"], [A], [], "'b' names no model beside others; write NAME@alias or NAME/VERSION"),
        (["./models/a", "b/1"], [A], [], "'./models/a' names no model beside others"),
        (["a@champion"], [A, B], [], "1 references and 2 workspaces; give --workspace once for all or once for each"),
        (["a/1", "b/1", "c/1"], [A, B], [], "3 references and 2 workspaces"),
        (["a@champion"], [A], ["a@x", "a@y"], "a@champion cannot have 2 shadows; give --shadow once"),
        (["a/1", "b/1"], [A], ["a@x", "a@y"], "line 'a' has two shadows, a@x and a@y"),
        (["a/1", "b/1"], [A], ["c@x"], "the shadow c@x is of none of the lines a, b"),
        (["a/1", "b/1"], [A], ["x"], "'x' names no shadow beside others"),
        (
            ["a/1", "Line-B@champion"],
            [A],
            [],
            "no capital letters, also if its folder has some; write 'line-b@",
        ),
    ],
)
def test_lines_that_do_not_go_together_are_refused(
    refs: list[str], roots: list[Path], shadows: list[str], sentence: str
) -> None:
    with pytest.raises(SamifError, match=sentence):
        routes_of(refs, roots, shadows)


def two_bad_lines(folder: Path, tracking_uri: str) -> list[Settings]:
    """One without a workspace, and one with a registry there."""
    waiting = folder / "waiting"
    waiting.mkdir()
    (waiting / "params.yaml").write_text(
        f"line: waiting\ndataset: {{drawn: {{}}, base_classes: [bolt]}}\nregistry: {{tracking_uri: '{tracking_uri}'}}\n"
    )
    return [Settings(f"{name}@champion", folder / name, folder / f"state-{name}", None) for name in ("gone", "waiting")]


def test_a_registry_that_keeps_silent_holds_up_the_other_lines_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.serve.server.START_SECONDS", 2.0)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lines = two_bad_lines(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert loadable(lines, said.append) == [replace(line, wait_for_model=True) for line in lines]
    assert len(said) == 2 and "gone@champion is not served yet, but tried again" in said[0]
    assert said[1].endswith("it is still loading after 2 seconds")


def test_no_line_that_can_be_loaded_is_no_service(tmp_path: Path) -> None:
    lines = two_bad_lines(tmp_path, "sqlite:///nothing.db")
    with pytest.raises(SamifError, match="^gone@champion: .* give --workspace; waiting@champion: there is no registry"):
        loadable(lines, lambda _: None)
    with pytest.raises(SamifError, match="^there is no classifier.safetensors in 'gone@champion' and no params.yaml"):
        loadable(lines[:1], lambda _: None)


@pytest.mark.parametrize(
    ("cpus", "gpus", "replicas", "expected"),
    [
        (2, 0, 1, (2, 0.0)), (2, 0, 2, (1, 0.0)), (4, 0, 4, (1, 0.0)), (8, 0, 3, (2, 0.0)),
        (16, 1, 1, (16, 1.0)), (16, 1, 2, (8, 0.5)), (16, 2, 3, (4, 0.5)), (16, 4, 2, (8, 1.0)), (3, 2, 3, (1, 0.5)),
    ],
)  # fmt: skip
def test_all_replicas_fit_at_once(cpus: int, gpus: int, replicas: int, expected: tuple[int, float]) -> None:
    got = share(fit(replicas, [(cpus, gpus)]), replicas)
    assert got == expected
    assert got[0] * replicas <= cpus
    if gpus:  # a replica lies on one GPU
        assert int(1 / got[1]) * gpus >= replicas


# The queue


def test_the_queue_is_as_long_as_said() -> None:
    counts: list[int] = []
    admission = Admission(2, counts.append)
    admission.enter()
    admission.enter()
    with pytest.raises(HttpError) as refusal:
        admission.enter()
    assert (refusal.value.status, refusal.value.headers) == (503, {"Retry-After": "1"})
    admission.leave()
    admission.enter()
    assert counts == [1, 2, 1, 2]


# The alias poller and the model slot


def test_a_refresh_request_polls_at_once(tmp_path: Path) -> None:
    polls = threading.Semaphore(0)
    poller = AliasPoller(polls.release, 3600.0, tmp_path / "refresh")
    poller.start()
    assert polls.acquire(timeout=30)
    assert not polls.acquire(timeout=0.2)
    (tmp_path / "refresh").touch()
    assert polls.acquire(timeout=30)
    poller.stop()


class Told(Source):
    """A source that says what it is told: where the alias stands, and which versions are bad."""

    def __init__(self) -> None:
        self.at: int | Exception = 1
        self.bad: dict[int, Exception] = {}
        self.loaded: list[int | None] = []
        self.moved: str | None = None
        self.last: LastServed | None = None
        self.recorded: list[int | None] = []

    def hand_move(self, ref: str) -> str | None:
        return self.moved

    def last_served(self, ref: str) -> LastServed | None:
        return self.last

    def record_served(self, ref: str, version: Version) -> None:
        self.recorded.append(version.number)

    def resolve(self, ref: str) -> tuple[str, int | None]:
        if isinstance(self.at, Exception):
            raise self.at
        return "demo-classifier", self.at

    def load(
        self,
        name: str,
        number: int | None,
        beside: Version | None,
        heads_only: bool = False,
        folder: Path | None = None,
    ) -> Version:
        self.loaded.append(number)
        if number in self.bad:
            raise self.bad[number]
        return Version(name, number, {}, None)  # type: ignore[arg-type]


def live(slot: ModelSlot) -> int | None:
    assert slot.state.live is not None
    return slot.state.live.number


def test_going_back_reads_nothing() -> None:
    source = Told()
    slot = ModelSlot(source, "demo@champion")
    slot.start()
    for number in (2, 1, 2, 1):
        source.at = number
        slot.poll()
        assert live(slot) == number and not slot.behind
    assert source.loaded == [1, 2] and slot.state.swaps == 4


@pytest.mark.parametrize("error", [SamifError("not the card's"), RuntimeError("size mismatch"), MemoryError()])
def test_a_bad_version_is_told_once_and_tried_again_later(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    source, told = Told(), []
    slot = ModelSlot(source, "demo@champion", on_change=lambda slot: told.append(slot.failure))
    slot.start()
    source.at, source.bad = 2, {2: error}
    for _ in range(3):
        slot.poll()
    assert live(slot) == 1 and slot.behind and source.loaded == [1, 2]
    assert slot.failure is not None and slot.failure.version == "demo-classifier/2"
    assert (str(error) or type(error).__name__) in slot.failure.why
    monkeypatch.setattr("flows.serve.model_slot.time.monotonic", lambda: slot.failure.until + 1)
    slot.poll()
    assert source.loaded == [1, 2, 2] and len(told) == 2
    source.bad = {}
    monkeypatch.setattr("flows.serve.model_slot.time.monotonic", lambda: slot.failure.until + 2)
    slot.poll()
    assert live(slot) == 2 and not slot.behind


def test_a_registry_that_does_not_answer_changes_nothing() -> None:
    source = Told()
    slot = ModelSlot(source, "demo@champion")
    slot.start()
    source.at = SamifError("the registry does not answer")
    slot.poll()
    assert live(slot) == 1 and slot.registry_error == "the registry does not answer"
    source.at = 1
    slot.poll()
    assert slot.registry_error is None and source.loaded == [1]


AWAY = ServiceUnavailable("the registry does not answer")


@pytest.mark.parametrize(("then", "loads"), [(1, [1]), (2, [1, 2])])
@pytest.mark.parametrize("first", ["start", "poll"])
def test_while_the_registry_is_away_the_version_served_last_is_served(first: str, then: int, loads: list[int]) -> None:
    source, told = Told(), list[str | None]()
    source.at, source.last = AWAY, LastServed("demo-classifier", 1, Path("/served"))
    slot = ModelSlot(source, "demo@champion", on_change=lambda slot: told.append(slot.unconfirmed))
    getattr(slot, first)()
    slot.poll()
    assert live(slot) == 1 and slot.state.since is None and slot.registry_error == str(AWAY)
    assert slot.unconfirmed is not None and "demo-classifier/1 is served because demo@champion named it" in told[0]
    assert source.recorded == [] and len(told) == 1
    source.at = then
    slot.poll()
    assert live(slot) == then and slot.unconfirmed is None and slot.registry_error is None
    assert slot.state.since is not None and source.recorded == [then] and source.loaded == loads
    assert told[1:] == [None]


def test_where_nothing_was_served_before_a_registry_that_is_away_is_said_once() -> None:
    source = Told()
    source.at = AWAY
    slot = ModelSlot(source, "demo@champion")
    with pytest.raises(ServiceUnavailable, match="does not answer; nothing is served meanwhile: no version of demo@"):
        slot.start()
    slot.poll()
    slot.poll()
    assert slot.state.live is None and (slot.registry_error or "").count("nothing is served meanwhile") == 1
    source.at = 1
    slot.poll()
    assert live(slot) == 1 and source.recorded == [1]


@pytest.mark.parametrize(
    "error", [ObjectMissing("demo-classifier has no alias 'champion'"), ConfigError("params.yaml")]
)
def test_a_registry_that_says_that_nothing_is_live_is_believed(error: SamifError) -> None:
    source = Told()
    source.at, source.last = error, LastServed("demo-classifier", 1, Path("/served"))
    slot = ModelSlot(source, "demo@champion")
    with pytest.raises(type(error)):
        slot.start()
    slot.poll()
    assert slot.state.live is None and source.loaded == []


def test_the_version_served_last_is_tried_once_while_the_registry_is_away() -> None:
    source = Told()
    source.at, source.last, source.bad = AWAY, LastServed("demo-classifier", 1, Path("/served")), {1: MemoryError()}
    slot = ModelSlot(source, "demo@champion")
    for _ in range(3):
        slot.poll()
    assert source.loaded == [1] and slot.failure is not None and slot.failure.version == "demo-classifier/1"


def test_an_alias_moved_by_hand_is_told_until_it_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Told()
    slot = ModelSlot(source, "demo@champion")
    slot.start()
    assert slot.note is None
    source.at, source.moved = 2, "alias 'champion' of demo-classifier stands at 2, not by the journal"
    slot.poll()
    slot.poll()
    assert live(slot) == 2 and slot.note == source.moved
    assert caplog.messages.count(source.moved) == 1
    source.moved = None  # adopted
    slot.poll()
    assert slot.note is not None
    now = time.monotonic()
    monkeypatch.setattr("flows.serve.model_slot.time.monotonic", lambda: now + NOTE_SECONDS + 1)
    slot.poll()
    assert slot.note is None


def test_a_journal_that_cannot_be_read_keeps_nobody_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("line: demo\ndataset: {drawn: {}, base_classes: [bolt]}\n")
    source = Source(Settings("demo@champion", tmp_path, tmp_path, None))
    assert source.hand_move("demo@champion") is None  # nothing was opened yet
    source._open()
    for error, told in ((RuntimeError("odd"), None), (IntegrityError("tampered with"), "tampered with")):

        def fail(*_: object, error: Exception = error) -> str:
            raise error

        monkeypatch.setattr("flows.registry.registry.hand_move", fail)
        assert source.hand_move("demo@champion") == told
        assert source.hand_move("demo@challenger") is None


def test_params_that_are_mended_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("line: demo\nlines: 2\n")
    slot = ModelSlot(Source(Settings("demo@champion", tmp_path, tmp_path, None)), "demo@champion")
    slot.poll()
    assert "lines" in (slot.registry_error or "")
    (tmp_path / "params.yaml").write_text("line: demo\ndataset: {drawn: {}, base_classes: [bolt]}\n")
    slot.poll()
    assert "there is no registry at" in (slot.registry_error or "")


REPLICA = """
import os, sys, time
from pathlib import Path
from flows.serve.metrics import environment
state = Path(sys.argv[1])
os.environ.update(environment(state))
from flows.serve.metrics import Metrics
from flows.serve.replica_status import ReplicaStatus, is_running, read_replicas
status = ReplicaStatus(state)
metrics = Metrics(state, status.id)
metrics.queue.set(3)
metrics.requests.labels("/v1/segment", "200").inc()
status.publish({"replica": sys.argv[2]})
print("up", flush=True)
if sys.argv[3] == "stay":
    time.sleep(600)
print(metrics.page().decode())
"""


def replica_process(state: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(state / "metrics")}
    command = [sys.executable, "-c", REPLICA, str(state), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def test_a_replica_that_was_killed_is_no_longer_reported_and_its_gauges_are_gone(tmp_path: Path) -> None:
    """Its process id says nothing: another process may have it by then, here our own."""
    first = replica_process(tmp_path, "first", "stay")
    assert [view["replica"] for view in read_replicas(tmp_path)] == ["first"]
    first.kill()
    first.wait()
    report = next((tmp_path / "replicas").glob("*.json"))
    report.write_text(json.dumps(json.loads(report.read_text()) | {"pid": os.getpid()}))
    with replica_process(tmp_path, "second", "page") as second:
        page = second.stdout.read() if second.stdout else ""
    assert "samif_queue 3.0" in page.splitlines()
    assert 'samif_requests_total{code="200",path="/v1/segment"} 2.0' in page.splitlines()
    assert read_replicas(tmp_path) == [] and list((tmp_path / "replicas").iterdir()) == []


def test_replicas_of_one_process_id_in_two_containers_do_not_share_a_file(tmp_path: Path) -> None:
    """Both are made here, in one process, so their process ids are equal."""
    one, two = ReplicaStatus(tmp_path), ReplicaStatus(tmp_path)
    one.publish({"replica": "one"})
    two.publish({"replica": "two"})
    views = read_replicas(tmp_path)
    assert [view["replica"] for view in views] == ["one", "two"] and len({view["id"] for view in views}) == 2
    assert is_running(tmp_path, one.id) and not is_running(tmp_path, "nobody")


def test_a_reference_needs_a_workspace_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="no params.yaml here; give --workspace"):
        Source(Settings("demo@champion", tmp_path, tmp_path, None)).resolve("demo@champion")


# Disagreement

SIDE = 32
PLACES = [rectangle((SIDE, SIDE), top, left, 12, 12) for top in (2, 18) for left in (2, 18)]


def found(**named: int) -> Instances:
    """One instance per place, called so."""
    masks = [rle(PLACES[place]) for place in named.values()]
    return Instances(SIDE, SIDE, masks, boxes(masks), tuple(named), np.ones(len(named)))


@pytest.mark.parametrize(
    ("champion", "challenger", "expected"),
    [
        ({}, {}, []),
        ({"bolt": 0, "gear": 1}, {"gear": 1, "bolt": 0}, []),
        ({"bolt": 0}, {}, [("only_champion", "bolt", None)]),
        ({}, {"hook": 2}, [("only_challenger", None, "hook")]),
        ({"bolt": 0, "gear": 1}, {"hook": 0, "gear": 1}, [("renamed", "bolt", "hook")]),
        ({"unknown": 0}, {"wing": 0, "bolt": 3}, [("renamed", "unknown", "wing"), ("only_challenger", None, "bolt")]),
    ],
)
def test_what_a_disagreement_is(
    champion: dict[str, int], challenger: dict[str, int], expected: list[tuple[str, str | None, str | None]]
) -> None:
    got = disagreements(found(**champion), found(**challenger))
    assert [(item.kind, item.champion, item.challenger) for item in got] == expected


def test_masks_that_nearly_agree_are_one_object() -> None:
    shifted = rle(np.roll(PLACES[0], 1, axis=1))
    other = Instances(SIDE, SIDE, [shifted], boxes([shifted]), ("bolt",), np.ones(1))
    assert disagreements(found(bolt=0), other) == []
    [only] = disagreements(found(gear=0), other)
    assert only.box == (2.0, 2.0, 12.0, 12.0)
