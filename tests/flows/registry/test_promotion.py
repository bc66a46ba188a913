"""Compare, gate, promote, roll back, verify and look back: on SQLite, and on a server over PostgreSQL and S3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.comparison.examiner import Examiner
from flows.registry.hand_moves import hand_move
from flows.registry.mlflow_store import MlflowStore
from flows.registry.ownership import claim
from flows.registry.promotion import Promotions
from flows.registry.promotion_request import Evidence, Request
from flows.registry.registry import Registry
from samif.config import Params
from samif.dataset.model import Dataset
from samif.errors import ConfigError, GateFailed, SamifError
from samif.versions.verdict import Check, Verdict
from tests.support.browser import look
from tests.support.tagged_line import ROWS, TaggedLine

ROOT = Path(__file__).parents[3]


def samif(line: TaggedLine, *words: str) -> str:
    """What a command prints; SamifError where it refuses."""
    import flows.cli.promotion  # noqa: F401

    ran = CliRunner().invoke(app, ["registry", *words, "--workspace", str(line.layout.root)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def of(line: TaggedLine, *words: str) -> Any:
    return json.loads(samif(line, *words, "--json"))


def the_operators_day(line: TaggedLine) -> None:
    """Promote session 1, refuse a session 2 whose base AP fell, promote a good one, roll back, verify, look back."""
    name = line.line
    line.grow()
    assert of(line, "history", name)["history"] == []
    assert of(line, "promote", f"{name}/1", "--who", "ann")["live"] == 1
    assert of(line, "promote", f"{name}/2", "--who", "bob", "--why", "hooks are there")["previous"] == 1

    with pytest.raises(SamifError, match=r"refused: base: AP fell from 100.00 to 75.25, at most 0.50 less is allowed"):
        samif(line, "promote", f"{name}/3")
    compared = of(line, "compare", f"{name}@champion", f"{name}/3")
    assert compared["outcome"] == "failed" and compared["comparison"]["classes"]["bolt"]["after"] < 60
    page = Path(compared["page"]).read_text()
    assert f"{name}-classifier/3 is refused" in page and page.count("data:image/jpeg") == 3 * 8
    assert "http" not in page.replace("http-equiv", "")
    for width in (1200, 500):
        seen = look(Path(compared["page"]), width, line.layout.root)
        assert (seen.overflow, seen.broken, seen.requests, seen.images) == (0, 0, 0, 3 * 8)
    kept = line.registry._store.client.get_run(compared["run"]).data.tags
    assert (kept["outcome"], kept["verdict"]) == ("failed", compared["digest"])
    assert line.registry.aliases(name) == {"champion": 2, "previous": 1, "challenger": 4}

    better = of(line, "compare", f"{name}/2", f"{name}/4")
    assert (better["outcome"], better["comparison"]["added"]) == ("passed", ["wing"])
    samif(line, "promote", f"{name}@challenger", "--verdict", better["digest"][:12])
    assert line.registry.aliases(name) == {"champion": 4, "previous": 2}
    with pytest.raises(SamifError, match="/4 is live already"):
        samif(line, "promote", f"{name}/4")

    assert "/2 is live; a rollback leads to 1" in samif(line, "rollback", name, "--why", "wings look odd")
    assert line.registry.aliases(name) == {"champion": 2, "previous": 1}
    states = {item["name"]: item["state"] for item in of(line, "verify", f"{name}@champion")}
    assert set(states.values()) == {"ok"} and {"classifier", "decoder", "images", "journal"} <= set(states)

    told = of(line, "history", name)
    assert [(term["version"], term["how"]) for term in told["history"]] == [
        (1, "promoted"),
        (2, "promoted"),
        (4, "promoted"),
        (2, "rolled back"),
    ]
    assert [term["who"] for term in told["history"]][:2] == ["ann", "bob"]
    assert told["history"][1]["why"] == "hooks are there" and told["history"][1]["outcome"] == "passed"
    assert told["history"][2]["verdict"] == better["digest"]
    assert (told["live"], told["alias"], told["unfinished"], told["journal"]["entries"]) == (2, 2, None, 8)
    assert "wings" in samif(line, "history", name)
    samif(line, "rollback", name)
    with pytest.raises(SamifError, match=r"nothing was live before .*/1"):
        samif(line, "rollback", name)


def test_the_operators_day_on_sqlite(tmp_path: Path, migrated: Path) -> None:
    the_operators_day(TaggedLine(tmp_path / "line", migrated))


def test_the_operators_day_on_a_server_over_postgresql_and_s3(tmp_path: Path, registry_server: str) -> None:
    the_operators_day(TaggedLine(tmp_path / "line", registry_server, "stamped"))


# Approval and force, on verdicts made up for the occasion


VERSIONS = 4


def params_of(line: str) -> Params:
    """Of a workspace of that line."""
    return Params.model_validate({"line": line, "dataset": {"drawn": {}, "base_classes": ["bolt"]}})


PARAMS = params_of("demo")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """An SQLite registry with versions 1 to 4 and nothing live."""
    root = tmp_path_factory.mktemp("empty")
    with (store := opened(migrated, root)).writing():
        store.make_model("demo-classifier")
        for number in range(VERSIONS):
            store.client.create_model_version("demo-classifier", f"none:/{number}", await_creation_for=0)
    return root / ".samif" / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> MlflowStore:
    return opened(empty, tmp_path)


def opened(database: Path, root: Path) -> MlflowStore:
    """A copy of a registry in a workspace of its own."""
    (root / ".samif").mkdir()
    (root / ".samif" / "mlflow.db").write_bytes(database.read_bytes())
    return MlflowStore(None, root)


def verdict(version: int, live: int | None, outcome: str = "passed", reason: str = "base: AP fell") -> Verdict:
    checks = [Check.model_validate({"name": "drop", "subject": "base", "outcome": outcome, "reason": reason})]
    name = "demo-classifier"
    return Verdict(
        candidate=f"{name}/{version}", candidate_card=f"{version:064d}", champion=f"{name}/{live}" if live else None,
        champion_card=None, policy="", checks=tuple(checks),
    )  # fmt: skip


def on(version: int, outcome: str = "passed", reason: str = "base: AP fell") -> Callable[[int | None], Evidence]:
    return lambda live: Evidence(verdict(version, live, outcome, reason))


def kinds(promotions: Promotions) -> list[str]:
    return [entry.kind for entry in promotions.state()[0].entries]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"line": "other"}, "demo-classifier is not of line 'other' of this workspace"),
        ({"workspace": "fedcba9876543210"}, "belongs to another workspace"),
    ],
)
def test_only_a_workspace_of_the_line_promotes(store: MlflowStore, change: dict[str, str], sentence: str) -> None:
    """Whoever calls `promote`: nothing is judged, nothing is written."""
    claim(store, PARAMS, "ann")
    asked: list[int | None] = []
    promotions = Promotions(store, "demo", PARAMS.model_copy(update=change))
    with pytest.raises(ConfigError, match=sentence):
        promotions.promote(1, Request("bob", force=True), lambda live: Evidence(verdict(1, asked.append(live))))
    assert asked == [] and kinds(promotions) == []
    Promotions(store, "demo", PARAMS).promote(1, Request("ann"), on(1))


def test_an_unclear_verdict_waits_for_a_person(store: MlflowStore) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    with pytest.raises(SamifError, match=r"needs a person's approval about this: base: AP fell; .*--approve PERSON"):
        promotions.promote(1, Request("ann"), on(1, "unclear"))
    live = promotions.promote(1, Request("ann", approve="carl"), on(1, "unclear"))
    assert live.terms[-1].decision.approved_by == "carl" and not live.terms[-1].decision.forced
    assert kinds(promotions) == ["approve", "promote", "done"]


def test_a_policy_may_always_ask(store: MlflowStore) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    with pytest.raises(SamifError, match="needs a person's approval;"):
        promotions.promote(1, Request("ann", always_ask=True), on(1))
    assert promotions.promote(1, Request("ann", approve="carl", always_ask=True), on(1)).version == 1


def approve_and_crash(store: MlflowStore, version: int, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The approval reaches the journal, the decision does not."""
    with monkeypatch.context() as patch:
        stop_at(store, 3, patch)
        with pytest.raises(Killed):
            Promotions(store, "demo", PARAMS).promote(version, Request("ann", approve="carl"), on(version, outcome))
    assert kinds(Promotions(store, "demo", PARAMS))[-1] == "approve"


def test_an_approval_holds_until_the_evidence_changes(store: MlflowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    approve_and_crash(store, 1, "unclear", monkeypatch)
    promotions = Promotions(store, "demo", PARAMS)
    with pytest.raises(SamifError, match="the approval by carl is void: the evidence has changed since"):
        promotions.promote(1, Request("ann"), on(1, "unclear", "base: AP fell a little more"))
    live = promotions.promote(1, Request("ann"), on(1, "unclear"))
    assert live.terms[-1].decision.approved_by == "carl"
    assert kinds(promotions) == ["approve", "promote", "done"]


def test_an_approval_is_for_one_change_only(store: MlflowStore) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    promotions.promote(1, Request("ann"), on(1))
    promotions.promote(2, Request("ann", approve="carl"), on(2, "unclear"))
    promotions.rollback(Request("ann"), lambda _: None)
    with pytest.raises(SamifError, match="needs a person's approval"):
        promotions.promote(2, Request("ann"), on(2, "unclear"))


def test_an_approval_names_the_verdict_that_was_looked_at(store: MlflowStore) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    seen = verdict(1, None, "unclear").digest
    with pytest.raises(SamifError, match=r"the verdict on demo-classifier/1 is now .* has changed since"):
        promotions.promote(1, Request("ann", approve="carl", verdict=seen[:12]), on(1, "unclear", "another reason"))
    assert promotions.promote(1, Request("ann", approve="carl", verdict=seen[:12]), on(1, "unclear")).version == 1


def test_force_overrides_gates_and_is_shouted_in_the_journal(store: MlflowStore) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    for outcome in ("failed", "unclear"):
        with pytest.raises(SamifError):
            promotions.promote(1, Request("ann"), on(1, outcome))
    term = promotions.promote(1, Request("ann", "the line stands", force=True), on(1, "failed")).terms[-1]
    assert (term.decision.forced, term.decision.overrode) == (True, ("base: AP fell",))
    assert term.decision.summary == "FORCED promote nothing -> 1 by ann: the line stands"
    assert not promotions.promote(2, Request("ann", force=True), on(2)).terms[-1].decision.forced  # nothing to override


def test_force_is_no_help_for_what_is_not_as_its_card_says(store: MlflowStore) -> None:
    bad = Check(name="verified", subject="card", outcome="failed", reason="classifier: 0123, but the card's is 4567")

    def evidence(live: int | None) -> Evidence:
        return Evidence(verdict(1, live).model_copy(update={"checks": (bad,)}))

    with pytest.raises(SamifError, match=r"not what its card says \(classifier: 0123.*force is no help"):
        Promotions(store, "demo", PARAMS).promote(1, Request("ann", force=True), evidence)


@pytest.mark.parametrize(("who", "why"), [("a" * 201, ""), ("ann", "b" * 2001)])
def test_a_name_or_reason_without_end_is_refused(store: MlflowStore, who: str, why: str) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    with pytest.raises(SamifError, match="the journal cannot take 'wh"):
        promotions.promote(1, Request(who, why), on(1))
    assert kinds(promotions) == []


# Crashes and races


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the code under test may catch it."""


WRITES = ("create_model_version", "set_registered_model_tag", "set_registered_model_alias",
          "delete_registered_model_alias")  # fmt: skip


def stop_at(store: MlflowStore, number: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Die right before the write of that number; returns the writes that came through."""
    seen: list[str] = []
    for method in WRITES:
        original = getattr(store.client, method)

        def counted(*args: Any, original: Any = original, method: str = method, **named: Any) -> Any:
            if len(seen) + 1 == number:
                raise Killed
            seen.append(method)
            return original(*args, **named)

        patch.setattr(store.client, method, counted)
    return seen


@pytest.fixture(scope="module")
def twice_promoted(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2 is live, 1 was before it, 3 is the challenger: a promotion of 3 then makes nine writes."""
    store = opened(empty, tmp_path_factory.mktemp("twice"))
    Promotions(store, "demo", PARAMS).promote(1, Request("ann"), on(1))
    Promotions(store, "demo", PARAMS).promote(2, Request("ann"), on(2))
    store.client.set_registered_model_alias("demo-classifier", "challenger", "3")
    assert store.database is not None
    return store.database


@pytest.mark.parametrize("point", range(1, 11))
def test_the_next_command_repairs_a_crash_at_any_step(
    twice_promoted: Path, tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(twice_promoted, tmp_path)
    with monkeypatch.context() as patch:
        seen = stop_at(store, point, patch)
        if point == 10:
            Promotions(store, "demo", PARAMS).promote(3, Request("ann", approve="carl"), on(3))
            assert len(seen) == 9
        else:
            with pytest.raises(Killed):
                Promotions(store, "demo", PARAMS).promote(3, Request("ann", approve="carl"), on(3))
    promotions = Promotions(store, "demo", PARAMS)
    decided = point > 3
    live = promotions.rollback(Request("bob"), lambda _: None)
    assert live.stack == ((1, 2) if decided else (1,))
    aliases = {alias: int(at) for alias, at in store.model("demo-classifier").aliases.items()}
    expected = {"champion": 2, "previous": 1} if decided else {"champion": 1, "challenger": 3}
    assert aliases == expected
    entries = promotions.state()[0].entries
    decisions = [entry.id for entry in entries if entry.kind in ("promote", "rollback")]
    assert sorted(decisions) == sorted(entry.closes for entry in entries if entry.kind == "done")
    assert [term.version for term in live.terms] == ([1, 2, 3, 2] if decided else [1, 2, 1])


def test_an_alias_moved_by_hand_is_put_back_and_that_is_journalled(store: MlflowStore) -> None:
    said: list[str] = []
    promotions = Promotions(store, "demo", PARAMS, said.append)
    promotions.promote(1, Request("ann"), on(1))
    store.client.set_registered_model_alias("demo-classifier", "champion", "4")
    promotions.promote(2, Request("ann"), on(2))
    assert said == ["alias 'champion' of demo-classifier stood at 4, not by the journal; put back to 1"]
    assert kinds(promotions) == ["promote", "done", "repair", "promote", "done"]


@pytest.mark.parametrize(("by_hand", "stands"), [("4", "stands at 4"), ("3", "stands at 3"), (None, "was removed")])
def test_a_move_by_hand_is_told_and_undone_in_one_command(store: MlflowStore, by_hand: str | None, stands: str) -> None:
    said: list[str] = []
    promotions = Promotions(store, "demo", PARAMS, said.append)
    promotions.promote(1, Request("ann"), on(1))
    assert hand_move(store, "demo") is None
    if by_hand is None:
        store.client.delete_registered_model_alias("demo-classifier", "champion")
    else:
        store.client.set_registered_model_alias("demo-classifier", "champion", by_hand)
    told = hand_move(store, "demo")
    assert told is not None and f"{stands}, not by the journal, which says 1: " in told
    assert ("samif registry adopt demo" in told) == (by_hand is not None)
    at, live = promotions.repair(Request("bob", "not agreed"))
    assert (at, live.version) == (None if by_hand is None else int(by_hand), 1)
    assert hand_move(store, "demo") is None
    last = promotions.state()[0].entries[-1]
    assert (last.kind, last.who, last.why, last.was, last.version) == ("repair", "bob", "not agreed", at, 1)
    assert promotions.repair(Request("bob"))[1].version == 1  # nothing more to do
    assert kinds(promotions) == ["promote", "done", "repair"]


def test_a_move_by_hand_is_adopted_without_moving_the_alias(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    promotions.promote(1, Request("ann"), on(1))
    store.client.set_registered_model_alias("demo-classifier", "champion", "4")
    moves: list[Any] = []
    real = store.client.set_registered_model_alias

    def moved(name: str, alias: str, version: str) -> None:
        moves.append((alias, version))
        real(name, alias, version)

    monkeypatch.setattr(store.client, "set_registered_model_alias", moved)
    live = promotions.promote(4, Request("bob", "agreed", adopt=True), on(4))
    assert live.stack == (1, 4) and ("champion", "1") not in moves
    assert kinds(promotions) == ["promote", "done", "promote", "done"] and hand_move(store, "demo") is None
    assert promotions.rollback(Request("ann"), lambda _: None).version == 1


def test_gates_hold_for_what_is_adopted(store: MlflowStore) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    promotions.promote(1, Request("ann"), on(1))
    store.client.set_registered_model_alias("demo-classifier", "champion", "4")
    with pytest.raises(GateFailed, match="is refused"):
        promotions.promote(4, Request("bob", adopt=True), on(4, "failed"))
    assert hand_move(store, "demo") is not None and kinds(promotions) == ["promote", "done"]


def test_what_was_live_before_the_journal_began_is_adopted(store: MlflowStore) -> None:
    store.client.set_registered_model_alias("demo-classifier", "champion", "3")
    promotions = Promotions(store, "demo", PARAMS)
    assert promotions.promote(4, Request("ann"), on(4)).stack == (3, 4)
    assert promotions.rollback(Request("ann"), lambda _: None).version == 3
    assert promotions.state()[1].terms[0].how == "found live"


def test_a_version_that_vanished_makes_the_decision_void(store: MlflowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    promotions = Promotions(store, "demo", PARAMS)
    promotions.promote(1, Request("ann"), on(1))
    with monkeypatch.context() as patch:
        stop_at(store, 3, patch)  # decided, no alias moved
        with pytest.raises(Killed):
            promotions.promote(2, Request("ann"), on(2))
    store.client.delete_model_version("demo-classifier", "2")
    assert promotions.promote(3, Request("bob"), on(3)).stack == (1, 3)
    assert kinds(promotions) == ["promote", "done", "promote", "void", "promote", "done"]


def test_the_evidence_is_asked_again_where_another_version_went_live_meanwhile(
    tmp_path: Path, registry_server: str
) -> None:
    ours, theirs = two_desks(tmp_path, registry_server, "twice")
    asked: list[int | None] = []

    def evidence(live: int | None) -> Evidence:
        asked.append(live)
        if len(asked) == 1:
            theirs.promote(2, Request("bob"), on(2))
        return Evidence(verdict(3, live))

    assert ours.promote(3, Request("ann"), evidence).stack == (1, 2, 3)
    assert asked == [1, 2]
    asked.clear()
    theirs.promote(1, Request("bob"), on(1))
    with pytest.raises(SamifError, match="/2 went live meanwhile, so the approval by carl is void"):
        ours.promote(3, Request("ann", approve="carl"), evidence)


def test_a_late_hand_on_the_alias_is_undone(tmp_path: Path, registry_server: str) -> None:
    """Ann decides on 2 and falls asleep before she moves the alias; Bob carries it out and puts 3 live; Ann wakes."""
    ours, theirs = two_desks(tmp_path, registry_server, "late")
    client = ours._store.client
    original = client.set_registered_model_alias
    slept: list[str] = []

    def asleep(name: str, alias: str, version: str) -> None:
        if alias == "champion" and not slept:
            slept.append(version)
            assert theirs.promote(3, Request("bob"), on(3)).stack == (1, 2, 3)
        original(name, alias, version)

    client.set_registered_model_alias = asleep  # type: ignore[method-assign]
    ours.promote(2, Request("ann"), on(2))
    chain, live, alias = theirs.state()
    assert slept == ["2"] and (live.version, alias) == (3, 3)
    assert [entry.kind for entry in chain.entries][2:] == ["promote", "done", "promote", "done", "repair"]


def test_somebody_elsewhere_is_given_time(
    tmp_path: Path, registry_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = two_desks(tmp_path, registry_server, "elsewhere")
    monkeypatch.setattr("flows.registry.promotion.this_process", lambda: here.model_copy(update={"host": "another"}))
    from flows.runtime.process import this_process as real

    here = real()
    with monkeypatch.context() as patch:
        stop_at(ours._store, 3, patch)
        with pytest.raises(Killed):
            ours.promote(2, Request("ann"), on(2))
    monkeypatch.setattr("flows.registry.promotion.this_process", real)
    said: list[str] = []
    theirs._say, theirs._lease = said.append, 0.6
    waits: list[float] = []
    clock = (0.25 * tick for tick in range(100))
    monkeypatch.setattr(
        "flows.registry.promotion.time", SimpleNamespace(sleep=waits.append, monotonic=lambda: next(clock))
    )
    assert theirs.promote(3, Request("bob"), on(3)).stack == (1, 2, 3)
    assert len(waits) == 2  # 0.6 s in steps of 0.25 s
    assert said == ["the promote of elsewhere-classifier/2 by ann had broken off and was carried out"]


def two_desks(tmp_path: Path, uri: str, line: str) -> tuple[Promotions, Promotions]:
    """Two workspaces on one server; version 1 is live."""
    ours, theirs = (Promotions(MlflowStore(uri, tmp_path / desk), line, params_of(line)) for desk in ("ours", "theirs"))
    with ours._store.writing():
        ours._store.make_model(f"{line}-classifier")
        for number in range(VERSIONS):
            ours._store.client.create_model_version(f"{line}-classifier", f"none:/{number}", await_creation_for=0)
    ours.promote(1, Request("ann"), on(1))
    return ours, theirs


def test_two_operators_at_once(registry_server: str) -> None:
    """Processes without a common lock file; the whole campaign is tests/slow/test_promotion_faults.py."""
    command = [sys.executable, "-m", "tests.support.promotion_campaign", registry_server]
    ran = subprocess.run([*command, "--rounds", "5", "--kills", "0"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [tally] = json.loads(ran.stdout).values()
    assert (tally["rounds"], tally["decided"], tally["refused"]) == (5, 8, 2)  # 3 x two versions, 2 x the same one


# Tampering


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> TaggedLine:
    """Version 1 is live, version 2 would follow."""
    line = TaggedLine(tmp_path_factory.mktemp("promoted") / "line", migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    samif(line, "promote", "demo/1")
    line.add("s1", "base", hook=ROWS["hook"])
    return line


@pytest.fixture
def grown(promoted: TaggedLine, tmp_path: Path) -> TaggedLine:
    return promoted.copy(tmp_path / "line")


def stored(line: TaggedLine, name: str, version: int = 2) -> Path:
    """The file of a version in the registry's own folder."""
    logged = line.registry.show(f"demo/{version}").tags["model_id"]
    return next((line.layout.state / "mlartifacts" / "models" / logged).rglob(name))


def differing(line: TaggedLine, ref: str = "demo/2") -> set[str]:
    """What `verify` says differs."""
    with pytest.raises(SamifError, match=f"^{ref} is not what its card says: ") as refused:
        samif(line, "verify", ref)
    items = str(refused.value).partition("says: ")[2].partition(" differ")[0]
    return set(items.split(", "))


def test_the_command_line_tells_of_a_move_by_hand_and_ends_it(grown: TaggedLine) -> None:
    assert "by the journal" not in samif(grown, "list")
    with pytest.raises(ConfigError, match="there is nothing to adopt"):
        samif(grown, "adopt", "demo")
    assert "nothing to repair" in samif(grown, "repair", "demo")
    grown.registry._store.client.set_registered_model_alias("demo-classifier", "champion", "2")
    for command in (("list",), ("history", "demo")):
        told = samif(grown, *command)
        assert "alias 'champion' of demo-classifier stands at 2, not by the journal, which says 1" in told
    assert "stood at 2, not by the journal; put back to 1" in samif(grown, "repair", "demo", "--why", "not agreed")
    assert grown.registry.aliases("demo")["champion"] == 1
    grown.registry._store.client.set_registered_model_alias("demo-classifier", "champion", "2")
    assert of(grown, "adopt", "demo", "--who", "bob", "--why", "agreed")["live"] == 2
    _, second = of(grown, "history", "demo")["history"]
    assert (second["version"], second["who"], second["why"], second["outcome"]) == (2, "bob", "agreed", "passed")
    assert "by the journal" not in samif(grown, "list")


def test_a_tampered_classifier_is_refused(grown: TaggedLine) -> None:
    path = stored(grown, "classifier.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "classifier" in differing(grown)
    with pytest.raises(SamifError, match=r"not what its card says .*classifier"):
        samif(grown, "promote", "demo/2", "--force")
    with pytest.raises(SamifError, match="is not the classifier of card 's1'"):
        grown.registry.download("demo/2")


def test_a_tampered_card_is_refused(grown: TaggedLine) -> None:
    path = stored(grown, "card.json")
    path.write_text(path.read_text().replace('"pretrain_classes": "base"', '"pretrain_classes": "all"'))
    assert differing(grown) == {"card"}
    with pytest.raises(SamifError, match=r"not what its card says .*card"):
        samif(grown, "promote", "demo/2")
    path.write_text("{}")
    assert differing(grown) == {"card"}


def test_a_tampered_decoder_is_refused(grown: TaggedLine) -> None:
    path = next((grown.layout.state / "mlartifacts").rglob("decoder.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert differing(grown) == {"decoder"}
    with pytest.raises(SamifError, match=r"not what its card says .*decoder"):
        samif(grown, "promote", "demo/2")
    with pytest.raises(SamifError, match="is not the decoder of card 's1'"):
        grown.registry.download("demo/2")


@pytest.mark.parametrize(
    ("name", "before", "after", "items"),
    [
        ("evaluation.json", '"ap":100.0', '"ap":99.0', {"evaluation", "metrics"}),
        ("params.yaml", "shots: 5", "shots: 6", {"params"}),
        ("dvc.lock", "stages", "states", {"dvc.lock"}),
    ],
)
def test_other_tampered_evidence_shows(grown: TaggedLine, name: str, before: str, after: str, items: set[str]) -> None:
    path = stored(grown, name)
    text = path.read_text().replace('"ap": ', '"ap":')
    assert before in text
    path.write_text(text.replace(before, after))
    assert differing(grown) == items


def test_missing_files_changed_numbers_and_changed_images_show(grown: TaggedLine) -> None:
    client = grown.registry._store.client
    run = grown.registry.show("demo/2").run_id
    client.log_metric(run, "AP/base", 12.0)
    assert differing(grown) == {"metrics"}
    client.set_model_version_tag("demo-classifier", "2", "dataset_digest", "0" * 64)
    assert differing(grown) == {"metrics", "tags"}
    next(grown.layout.drawn.rglob("val/images/3.png")).write_bytes(b"another image")
    assert differing(grown) == {"metrics", "tags", "images"}
    stored(grown, "session.json").unlink()
    assert "session" in differing(grown)


def test_a_tampered_journal_stops_promotion_rollback_and_history(grown: TaggedLine) -> None:
    client = grown.registry._store.client
    whole = client.get_model_version("demo-journal", "1").tags["entry"]
    client.set_model_version_tag("demo-journal", "1", "entry", whole.replace('"version":1', '"version":2'))
    for command in (("promote", "demo/2"), ("rollback", "demo"), ("history", "demo"), ("verify", "demo/1")):
        with pytest.raises(SamifError, match="the journal 'demo-journal' was tampered with: entry 1 was altered"):
            samif(grown, *command)
    client.set_model_version_tag("demo-journal", "1", "entry", whole)
    client.delete_model_version("demo-journal", "2")
    with pytest.raises(SamifError, match=r"tampered with: it had an entry 2 .* which is gone"):
        samif(grown, "history", "demo")
    client.delete_registered_model("demo-journal")
    with pytest.raises(SamifError, match="which is gone"):
        samif(grown, "promote", "demo/2")


def test_a_workspace_that_moved_on_says_nothing_against_a_version(grown: TaggedLine) -> None:
    index = grown.layout.index("val")
    val = Dataset.load(index, grown.layout.root)
    replace(val, images=[replace(image, width=image.width + 1) for image in val.images]).save(index)
    states = {item["name"]: item["state"] for item in of(grown, "verify", "demo/1")}
    assert states["data set"] == "not reachable" and "images" not in states
    # But a promotion needs the images that the evaluation rests on.
    with pytest.raises(SamifError, match=r"refused: .*was scored on images"):
        samif(grown, "promote", "demo/2")


def test_without_images_only_force_promotes(grown: TaggedLine) -> None:
    grown.layout.index("val").unlink()
    with pytest.raises(SamifError, match="could not be scored on the validation images: .*val.parquet does not exist"):
        samif(grown, "promote", "demo/2")
    shouted = samif(grown, "promote", "demo/2", "--force", "--why", "the disk is gone")
    assert "FORCED over: " in shouted and "could not be scored" in shouted
    assert of(grown, "history", "demo")["history"][-1]["forced"] is True
    assert "FORCED" in samif(grown, "history", "demo")


def test_an_examination_is_the_same_on_every_machine(grown: TaggedLine) -> None:
    verdicts = [
        Examiner(grown.layout, grown.params, Registry(None, grown.layout.root))
        .examine("demo-classifier/2", "demo-classifier/1")
        .verdict
        for _ in range(2)
    ]
    assert verdicts[0] == verdicts[1] and verdicts[0].outcome == "passed"
