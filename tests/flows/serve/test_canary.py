"""A canary inside a replica: real versions and a real registry, without HTTP."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from flows.registry.journal import JournalEntry
from flows.registry.registry import Registry
from flows.serve import canary as canary_module
from flows.serve.application import application
from flows.serve.canary import Canary
from flows.serve.canary_control import POLL_SECONDS, CanaryControl, request_key, share_of
from flows.serve.found import find
from flows.serve.routes import routes_of
from flows.serve.settings import CanarySettings, Settings
from flows.serve.versions import Source, Version
from samif.config import load_params
from samif.errors import SamifError, ServiceUnavailable
from samif.inference.segment import Segmenter
from samif.watch.canary import CHANGED, CONFIDENCE, ENOUGH, ERRORS, LATENCY, NAMED, TAIL, UNKNOWNS
from tests.support.console import inside
from tests.support.served_line import ServedLine

REF = "demo@challenger"
TEMPERATURE = 20.0


def _with_head(segmenter: Segmenter, rows: Any = None, **space: Any) -> Segmenter:
    head = segmenter.classifier
    changed = replace(head, space=replace(head.space, **space), rows=head.rows if rows is None else rows)
    return replace(segmenter, classifier=changed)


def _trained_again(segmenter: Segmenter) -> Segmenter:
    rows = segmenter.classifier.rows
    noise = 0.05 * np.random.default_rng(1).normal(size=rows.shape)
    return _with_head(segmenter, rows + noise.astype(np.float32))


WORSE: dict[str, Callable[[Segmenter], Segmenter]] = {
    "names fewer": lambda segmenter: _with_head(segmenter, background_bias=25.0),
    "names wrongly": lambda segmenter: _with_head(segmenter, np.roll(segmenter.classifier.rows, 1, axis=0)),
    "less certain": lambda segmenter: _with_head(segmenter, temperature=2.0),
    "slower": lambda segmenter: replace(
        segmenter, propose_params=segmenter.propose_params.model_copy(update={"points": 40})
    ),
}
KINDS = WORSE | {"equal": lambda segmenter: segmenter, "trained again": _trained_again}
"""What is done to version 2 once it is loaded."""


class Line:
    """A served line with a champion (1), an equal version (2), and one with another decoder (3); versions are loaded
    once for all copies."""

    def __init__(self, root: Path, database: Path) -> None:
        self.served = ServedLine(root, database)
        for temperature, decoder in ((TEMPERATURE, 0), (TEMPERATURE + 1e-3, 0), (TEMPERATURE, 1)):
            self.served.add("base", 4, decoder, temperature=temperature)
        self.served.alias("champion", 1)
        self.versions: dict[int, Version] = {}

    def copy(self, root: Path) -> Line:
        """The same in another folder, registry included."""
        shutil.copytree(self.served.root, root)
        twin, twin.served = copy(self), copy(self.served)
        twin.served.root, twin.served.registry = root, Registry(None, root)
        return twin

    @property
    def journal(self) -> list[JournalEntry]:
        params = load_params(self.served.root / "params.yaml")
        return list(self.served.registry.promotions("demo", params).state()[0].entries)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Line:
    torch.set_num_threads(1)
    return Line(tmp_path_factory.mktemp("canary") / "line", migrated)


@pytest.fixture
def made(template: Line, tmp_path: Path) -> Line:
    return template.copy(tmp_path / "line")


class Replica:
    """What a replica has of a canary: its control and its worker; `later` calls run at once."""

    def __init__(
        self, made: Line, state: Path, kind: str, name: str = "one", percent: float = 50.0, seconds: float = 20.0
    ) -> None:
        state.mkdir(parents=True, exist_ok=True)
        settings = Settings("demo@champion", made.served.root, state, None, canary=CanarySettings(REF, percent))
        self.source = Source(settings)
        known, load = made.versions, self.source.load

        def loaded(model: str, number: int | None, *rest: Any, **more: Any) -> Version:
            assert number is not None
            if number not in known:
                known[number] = load(model, number, *rest, **more)
            version = known[number]
            return version if number != 2 else replace(version, segmenter=KINDS[kind](version.segmenter))

        self.source.load = loaded  # type: ignore[method-assign]
        self.champion = self.source.load("demo-classifier", 1, None)
        counter = SimpleNamespace(labels=lambda _: SimpleNamespace(inc=lambda: None))
        self.control = CanaryControl(
            self.source, settings.canary, state, name, lambda: self.champion, lambda _: None  # type: ignore[arg-type]
        )  # fmt: skip
        self.canary = Canary(self.control, SimpleNamespace(canary=counter), seconds, lambda call: call())  # type: ignore[arg-type]

    def poll(self) -> None:
        self.control._next = 0.0
        self.control.poll()

    def ask(self, seed: int) -> tuple[int, bool]:
        """Number of the version that answers an image of noise, and whether the canary was asked."""
        image = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        seen = self.champion.segmenter.embed([image])[0]
        before = self.view["requests"]
        found = self.canary.answer(image, request_key(image.tobytes(), None), seen, 0.001, self.champion)
        assert found.version.number is not None
        return found.version.number, self.view["requests"] > before

    def ask_until_stopped(self, most: int, first: int = 0) -> int:
        """Requests to the canary until it is rolled back, at most so many."""
        requests, seed = 0, first
        while self.view["state"] == "running" and requests < most:
            requests, seed = requests + self.ask(seed)[1], seed + 1
        return requests

    @property
    def view(self) -> dict[str, Any]:
        return self.control.view().model_dump()


@pytest.fixture
def start(made: Line, tmp_path: Path) -> Callable[..., Replica]:
    """Starts a replica whose canary is a version of that kind, or of that number."""

    def started(kind: str, number: int = 2, state: Path | None = None, **more: Any) -> Replica:
        made.served.alias("challenger", number)
        replica = Replica(made, state or tmp_path / "state", kind, **more)
        replica.poll()
        return replica

    return started


# Which version answers


def test_the_split_is_the_same_everywhere_and_has_the_stated_share() -> None:
    keys = [request_key(f"image {i}".encode(), None) for i in range(20_000)]
    for title in ("demo-classifier/3", "demo-classifier/4"):
        shares = [share_of(key, title) for key in keys]
        assert shares == [share_of(key, title) for key in keys]
        for percent in (1, 10, 50):
            assert np.mean(np.array(shares) < percent / 100) == pytest.approx(percent / 100, abs=0.01)
    assert share_of(keys[0], "demo-classifier/3") == pytest.approx(0.29238, abs=1e-5)  # on every machine, at any time
    both = [share_of(key, "a/1") < 0.1 and share_of(key, "a/2") < 0.1 for key in keys]
    assert np.mean(both) == pytest.approx(0.01, abs=0.005)  # another canary takes other requests


def test_the_id_of_a_part_goes_before_its_image() -> None:
    assert request_key(b"one image", "part 7") == request_key(b"another image", "part 7")
    assert request_key(b"one image", None) != request_key(b"another image", None)
    assert request_key(b"one image", "part 7") != request_key(b"one image", "part 8")


def test_the_share_is_answered_by_the_canary_and_again_by_the_same_version(start: Callable[..., Replica]) -> None:
    replica = start("equal", percent=25.0)
    answers = [replica.ask(seed) for seed in range(24)]
    assert {asked for number, asked in answers if number == 2} == {True}
    assert {asked for number, asked in answers if number == 1} == {False}
    assert 1 <= sum(number == 2 for number, _ in answers) <= 14
    assert [replica.ask(seed) for seed in range(4)] == answers[:4]
    assert Replica.ask(start("equal", name="two", percent=25.0), 3) == answers[3]


@pytest.mark.parametrize(
    ("refs", "canaries", "shadows", "sentence"),
    [
        (["a@champion"], ["b@challenger"], [], "the canary b@challenger is of none of the models a@champion"),
        (["a@champion"], ["a@x", "a@y"], [], "line 'a' has two canaries, a@x and a@y; leave one out"),
        (["a@champion"], ["./folder"], [], r"'./folder' names no canary; write NAME@alias or NAME/VERSION$"),
        (["./a"], ["a@challenger"], [], "the canary a@challenger is of none of the models ./a"),
        (["a@champion"], ["a@challenger"], ["a@challenger"], "line 'a' has a shadow and a canary; leave one out"),
        (["a@champion", "b@champion"], ["c/1"], [], "the canary c/1 is of none of the models a@champion, b@champion"),
    ],
)
def test_a_canary_that_fits_no_model_is_refused(
    refs: list[str], canaries: list[str], shadows: list[str], sentence: str
) -> None:
    with pytest.raises(SamifError, match=sentence):
        routes_of(refs, [Path("/ws")], shadows, canaries)


def test_each_line_has_its_own_canary() -> None:
    lines = routes_of(["a@champion", "b@champion"], [Path("/ws")], ["a@x"], ["b-classifier/3"])
    assert [(line.shadow, line.canary) for line in lines] == [("a@x", None), (None, "b-classifier/3")]
    assert routes_of(["a"], [Path("/ws")], [], ["a@challenger"])[0].canary == "a@challenger"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"canary": "other@challenger"}, "the canary other@challenger is of none of the models demo@champion"),
        ({"canary": "demo@challenger", "shadow": "demo@challenger"}, "has a shadow and a canary"),
        (
            {"canary": "demo@challenger", "percent": 60.0},
            "args of the application: percent: .* less than or equal to 50",
        ),
        ({"canary": "demo@challenger", "percent": 0.0}, "args of the application: percent: .* greater than 0"),
    ],
)
def test_an_application_takes_a_canary_of_its_line(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SamifError, match=sentence):
        application({"model": "demo@champion", "workspace": "/ws", "state": "/state"} | arguments)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--retry-canary"], 1, "--retry-canary is for --canary; give that too"),
        (["--canary", "other@challenger"], 1, "the canary other@challenger is of none of the models demo@champion"),
        (["--canary", "demo@challenger", "--percent", "51"], 2, "less than or equal to 50"),
        (["--canary", "demo@challenger", "--percent", "0"], 2, "greater than or equal to 0.1"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(made: Line, options: list[str], code: int, sentence: str) -> None:
    import flows.cli.serve  # noqa: F401

    refused = inside(made.served.root, "serve", "demo@champion", *options)
    assert refused.code == code and sentence in refused.err + refused.out


# A canary that fails


def breaking(monkeypatch: pytest.MonkeyPatch, broken: Callable[[Version], bool]) -> None:
    def find_or_fail(version: Version, *rest: Any) -> Any:
        if broken(version):
            raise RuntimeError("a defect of this version")
        return find(version, *rest)

    monkeypatch.setattr(canary_module, "find", find_or_fail)


def test_a_failing_canary_costs_no_request_and_is_rolled_back(
    start: Callable[..., Replica], made: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = start("equal")
    breaking(monkeypatch, lambda version: version.number == 2)
    answers = [replica.ask(seed) for seed in range(20)]
    assert {number for number, _ in answers} == {1}
    assert sum(asked for _, asked in answers) == 3  # after which the canary was asked nothing more
    view = replica.view
    assert (view["state"], view["requests"]) == ("rolled back", 3)
    assert view["why"] == "errors: it failed 100% of the requests that the champion answered"
    replica.poll()
    (entry,) = made.journal
    assert (entry.kind, entry.version, entry.why, entry.canary) == (
        "refuse", 2, view["why"], {"requests": 3.0, ERRORS: 1.0},
    )  # fmt: skip


def test_what_the_champion_fails_too_is_no_fault_of_the_canary(
    start: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = start("equal")
    breaking(monkeypatch, lambda _: True)
    for seed in range(12):
        with pytest.raises(RuntimeError, match="a defect"):
            replica.ask(seed)
    assert replica.view["state"] == "running" and replica.view["requests"] == 0


def test_a_canary_that_hangs_costs_no_request_and_leaves_the_next_one_alone(
    start: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch, made: Line
) -> None:
    replica, free = start("equal", seconds=0.3), threading.Event()

    def hang(version: Version, *rest: Any) -> Any:
        if version.number == 2:
            free.wait(60)
        return find(version, *rest)

    monkeypatch.setattr(canary_module, "find", hang)
    answers = [replica.ask(seed) for seed in range(20)]
    assert {number for number, _ in answers} == {1} and replica.view["state"] == "rolled back"
    assert sum(asked for _, asked in answers) == 6 and replica.view["why"].startswith("slow requests: ")
    replica.poll()
    made.served.alias("challenger", 3)
    replica.poll()
    assert {replica.ask(seed)[0] for seed in range(10)} == {1, 3}
    assert replica.view["checks"][ERRORS]["mean"] == 0.0
    free.set()


# The comparison


def test_an_equal_version_has_no_difference_and_is_never_stopped(start: Callable[..., Replica]) -> None:
    replica = start("equal", percent=100.0)
    assert replica.ask_until_stopped(12) == 12
    checks = replica.view["checks"]
    expected = {ERRORS: 0.0, NAMED: 0.5, CHANGED: 0.0, CONFIDENCE: 0.5, UNKNOWNS: 0.5}
    found = {name: checks[name]["mean"] for name in expected if name in checks}
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-3)
    assert checks[LATENCY]["observations"] == checks[TAIL]["observations"] == 12 and {NAMED, CHANGED} <= checks.keys()


@pytest.mark.parametrize(("kind", "number"), [("trained again", 2), ("equal", 3)])
def test_other_versions_are_compared_too(start: Callable[..., Replica], kind: str, number: int) -> None:
    replica = start(kind, number, percent=100.0)
    asked = replica.ask_until_stopped(8)
    view = replica.view
    assert view["model"]["version"] == number and asked > 0
    assert view["checks"][LATENCY]["observations"] == view["requests"] == asked


@pytest.mark.parametrize("kind", WORSE)
def test_a_worse_version_is_rolled_back_within_the_promise(
    start: Callable[..., Replica], made: Line, kind: str
) -> None:
    replica = start(kind, percent=100.0)
    requests = replica.ask_until_stopped(ENOUGH + 1)
    assert requests <= ENOUGH, replica.view["checks"]
    replica.poll()
    assert [entry.version for entry in made.journal] == [2]
    assert {replica.ask(seed)[0] for seed in range(500, 515)} == {1}


# Several replicas, restarts, and a registry that is away


def test_the_evidence_of_replicas_is_pooled_and_one_decision_is_shared(
    start: Callable[..., Replica], made: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = start("equal", name="one")
    two, three = start("equal", name="two"), start("equal", name="three", state=tmp_path / "another machine")
    breaking(monkeypatch, lambda version: version.number == 2)
    assert one.ask_until_stopped(1) == 1 and two.ask_until_stopped(1, 100) == 1
    for replica in (one, two, three):
        replica.poll()
    one.poll()
    assert one.view["requests"] == three.view["requests"] == 2
    assert three.ask_until_stopped(5, 200) == 1  # the third error of all, its first
    assert three.view["state"] == "rolled back"
    three.poll()
    for replica in (one, two):
        assert replica.view["state"] == "running"  # on another machine, until they look
        replica.poll()
        assert {replica.ask(seed) for seed in range(300, 310)} == {(1, False)}
    assert [entry.kind for entry in made.journal] == ["refuse"]


def test_replicas_of_one_machine_see_a_stop_at_once(
    start: Callable[..., Replica], made: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = start("equal", name="one"), start("equal", name="two")
    breaking(monkeypatch, lambda version: version.number == 2)
    one.ask_until_stopped(5)
    assert {two.ask(seed) for seed in range(10)} == {(1, False)}
    two.poll()
    assert two.view["why"] == one.view["why"]
    one.poll()
    assert [entry.kind for entry in made.journal] == ["refuse"]


def test_a_restarted_service_does_not_start_it_again_unless_asked(
    start: Callable[..., Replica], made: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        breaking(patch, lambda version: version.number == 2)
        first = start("equal")
        first.ask_until_stopped(5)
        first.poll()
    assert "challenger" not in made.served.registry.aliases("demo")
    again = start("equal", name="later", state=tmp_path / "restarted")  # somebody gives the alias back by hand
    view = again.view
    assert view["state"] == "off" and "demo-classifier/2 was rolled back as a canary on" in view["why"]
    assert "it is not started again without --retry-canary" in view["why"]
    assert {again.ask(seed) for seed in range(10)} == {(1, False)}
    assert made.served.registry.canaries("demo").retry(REF, "ann") == 2
    again.poll()
    assert again.view["state"] == "running" and again.view["requests"] == 0
    assert {again.ask(seed)[0] for seed in range(10)} == {1, 2}


def test_evidence_survives_a_restart(start: Callable[..., Replica], tmp_path: Path) -> None:
    first = start("equal", name="first")
    first.ask_until_stopped(4)
    first.poll()
    second = start("equal", name="second", state=tmp_path / "restarted")
    assert second.view["requests"] == 4
    second.ask_until_stopped(2, 50)
    second.poll()
    assert second.view["requests"] == 6


def test_without_the_registry_a_canary_is_still_stopped_and_journalled_later(
    start: Callable[..., Replica], made: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = start("equal")
    breaking(monkeypatch, lambda version: version.number == 2)
    with monkeypatch.context() as away:

        def gone(_: str) -> Any:
            raise ServiceUnavailable("the registry does not answer")

        away.setattr(replica.source, "canaries", gone)
        replica.poll()
        assert replica.view["state"] == "running" and replica.view["slot"]["registry"] == "the registry does not answer"
        replica.ask_until_stopped(5)
        replica.poll()
        assert replica.view["state"] == "rolled back" and {replica.ask(s) for s in range(9)} == {(1, False)}
    assert made.journal == []
    replica.poll()
    assert [entry.kind for entry in made.journal] == ["refuse"] and replica.view["slot"]["registry"] is None


def test_without_its_alias_no_canary_answers(start: Callable[..., Replica], made: Line) -> None:
    replica = start("equal")
    made.served.alias("challenger", None)
    replica.poll()
    assert replica.view["state"] == "off" and "has no alias 'challenger'" in replica.view["why"]
    assert {replica.ask(seed) for seed in range(10)} == {(1, False)}
    made.served.alias("challenger", 1)
    replica.poll()
    assert replica.view["why"] == "demo-classifier/1 is live itself"


def test_without_a_champion_there_is_nothing_to_compare_a_canary_with(start: Callable[..., Replica]) -> None:
    replica = start("equal")
    live, replica.champion = replica.champion, None
    replica.poll()
    assert replica.view["why"] == "demo-classifier/2 waits for a champion to be compared with"
    replica.champion = live
    replica.poll()
    assert replica.view["state"] == "running"


def test_the_registry_is_asked_once_a_second_at_most(start: Callable[..., Replica], made: Line) -> None:
    replica = start("equal")
    made.served.alias("challenger", None)
    replica.control._next = 1e12
    replica.control.poll()
    assert replica.view["state"] == "running" and POLL_SECONDS == 1.0
