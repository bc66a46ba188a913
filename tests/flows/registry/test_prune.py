"""Retention: what is kept and why, on made-up lines; what is removed, on SQLite and on a server with a bucket."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import flows.cli.prune
from flows.cli import app
from flows.registry.journal import Journal, JournalEntry
from flows.registry.live_state import Live, fold
from flows.registry.promotion_request import Request
from flows.registry.prune import Prune
from flows.registry.retention import Candidate, Retention, reasons_to_keep
from flows.runtime.process import this_process
from samif.errors import SamifError
from tests.support.tagged_line import ROWS, TaggedLine

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = timedelta(days=400)


def version(number: int, days: float = 200, session: str = "base", after: str | None = None, **more: Any) -> Candidate:
    return Candidate(number, session, after, **{"decoder": 1, "seen": NOW - timedelta(days=days)} | more)


def lived(*versions: int, every: float = 10.0, **more: Any) -> Live:
    """Promoted one after the other, each that many days after the one before; the last one `every` days ago."""
    entries = []
    for place, number in enumerate(versions):
        at = NOW - timedelta(days=every * (len(versions) - place))
        for kind, closes in (("promote", None), ("done", f"p{place}")):
            entries.append(
                JournalEntry(
                    number=len(entries) + 1, after="", id=f"p{place}", kind=kind, time=at, who="ann",
                    process=this_process(), version=number, closes=closes,
                )
            )  # fmt: skip
    return fold(entries)


MANY = [version(number) for number in range(1, 11)]


@pytest.mark.parametrize(
    ("versions", "aliases", "live", "retention", "kept"),
    [
        (MANY, {}, Live(), Retention(), {10: "the newest version"}),
        ([*MANY[:3], version(4, days=29.9)], {}, Live(), Retention(), {4: "registered in the last 30 days"}),
        ([*MANY[:3], version(4, days=30.1)], {}, Live(), Retention(), {4: "the newest version"}),
        ([version(1, days=2.0), *MANY[1:]], {}, Live(), Retention(days=3), {1: "registered in the last 3 days"}),
        (MANY, {"held": 3}, Live(), Retention(), {3: "alias held"}),
        (MANY, {}, lived(2, 4, 6, 8, every=100), Retention(),
         {8: "live by the journal", 2: "one of the last 5", 4: "one of the last 5", 6: "one of the last 5"}),
        (MANY, {}, lived(2, 4, 6, 8, every=100), Retention(champions=2), {8: "live by", 6: "one of the last 2"}),
        (MANY, {}, lived(2, 4, 6, every=40), Retention(champions=2), {6: "live by", 4: "live in the last 90 days",
                                                                      2: "live in the last 90 days"}),
        ([version(1), version(2, session="s1", after="base"), version(3), version(4)], {"champion": 2}, Live(),
         Retention(), {2: "alias champion", 1: "2 was built on it"}),
        ([version(1), version(2), version(3, session="s1", after="base", decoder=2), version(4)], {"champion": 3},
         Live(), Retention(), {3: "alias champion"}),
        ([version(1, decoder=None), version(2), version(3)], {}, Live(), Retention(), {1: "not registered by samif"}),
    ],
)  # fmt: skip
def test_what_is_kept_and_why(versions: Any, aliases: Any, live: Live, retention: Retention, kept: Any) -> None:
    found = reasons_to_keep(versions, aliases, live, retention, NOW)
    assert found.keys() == kept.keys() | {max(v.number for v in versions)}
    assert [found[n] for n, reason in kept.items() if not found[n].startswith(reason)] == []


def test_what_is_undecided_is_kept_and_what_is_going_is_not() -> None:
    asked = JournalEntry(
        number=1, after="", id="a", kind="promote", time=NOW, who="ann", process=this_process(), version=3
    )
    assert set(reasons_to_keep(MANY, {}, fold([asked]), Retention(), NOW)) == {3, 10}
    gone = asked.model_copy(update={"kind": "prune", "version": None, "pruned": (2, 3)})
    young = [version(number, days=1) for number in range(1, 5)]
    assert set(reasons_to_keep(young, {"held": 3}, fold([gone]), Retention(), NOW)) == {1, 3, 4}


def test_a_rollback_passes_over_what_is_gone() -> None:
    live = lived(1, 2, 3)
    entry = JournalEntry(
        number=7, after="", id="x", kind="prune", time=NOW, who="ann", process=this_process(), pruned=(2,)
    )
    one = JournalEntry.model_validate_json(entry.text)
    assert (one.pruned, one.digest) == ((2,), entry.digest)
    assert "pruned" not in entry.model_copy(update={"pruned": ()}).text  # older entries keep their digests
    assert live.previous == 2
    from dataclasses import replace

    assert replace(live, stack=(1, 3), pruned=frozenset({2})).previous == 1


def prune(line: TaggedLine, days: float = 30.0, champions: int = 2, live_days: float = 0.0) -> Prune:
    """Of a line that is a year older than it is."""
    retention = Retention(days, champions, live_days)
    return Prune(line.registry._store, line.line, line.params, retention, datetime.now(UTC) + LATER)


def names(items: Any, kept: bool) -> list[str]:
    return [item.name.partition("-")[2] for item in items if item.kept is kept and not item.name.startswith("run ")]


def grown(line: TaggedLine) -> TaggedLine:
    """Versions 1 to 6: 4 is live and 2 was before; 3, 5 and 6 never were, and 6 is the newest."""
    line.grow()
    assert line.add("s2", "s1", wing=ROWS["bolt"]) == 5
    assert line.add("s2", "s1", wing=ROWS["gear"]) == 6
    with line.registry._store.writing():
        journal = Journal(line.registry._store, line.line)
        chain = journal.read()
        for number in (2, 4):
            chain = journal.write(chain, "promote", "ann", "", version=number)
            chain = journal.write(chain, "done", "ann", "", version=number, closes=chain.entries[-1].id)
    for alias, number in (("champion", 4), ("previous", 2)):
        line.registry._store.client.set_registered_model_alias(f"{line.line}-classifier", alias, str(number))
    line.registry._store.client.delete_registered_model_alias(f"{line.line}-classifier", "challenger")
    return line


def the_line_is_pruned(line: TaggedLine) -> None:
    classifier = f"{line.line}-classifier"
    store = line.registry._store
    gone = [store.client.get_run(store.version(classifier, number).run_id) for number in (3, 5)]
    models = [store.client.get_logged_model(run.outputs.model_outputs[0].model_id) for run in gone]
    assert all(store.model_files(model).list_artifacts(None) for model in models)
    looked = prune(line).look()
    assert names(looked, False) == ["classifier/3", "classifier/5"]
    assert "decoder/1" in names(looked, True) and all(item.bytes > 50 for item in looked)
    assert set(store.versions(classifier)) == {1, 2, 3, 4, 5, 6}

    assert prune(line).remove(Request("ann", "space")) == looked
    assert set(store.versions(classifier)) == {1, 2, 4, 6}
    assert line.registry.aliases(line.line) == {"champion": 4, "previous": 2}
    assert not any(store.run_files(run).list_artifacts(None) for run in gone)
    assert not any(store.model_files(model).list_artifacts(None) for model in models)
    assert {store.client.get_run(run.info.run_id).info.lifecycle_stage for run in gone} == {"deleted"}
    for number in (1, 2, 4, 6):
        assert (line.registry.download(f"{line.line}/{number}", line.layout.root / f"got{number}")).is_dir()
    ran = CliRunner().invoke(app, ["registry", "history", line.line, "-w", str(line.layout.root)])
    assert "removed versions 3, 5 by ann: space" in ran.output
    assert names(prune(line).look(), False) == []


@pytest.fixture(scope="module")
def model_line(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> TaggedLine:
    return grown(TaggedLine(tmp_path_factory.mktemp("pruned") / "line", migrated))


@pytest.fixture
def line(model_line: TaggedLine, tmp_path: Path) -> TaggedLine:
    return model_line.copy(tmp_path / "line")


def test_a_line_on_sqlite(line: TaggedLine) -> None:
    the_line_is_pruned(line)


def test_a_line_on_a_server_with_a_bucket(tmp_path: Path, registry_server: str) -> None:
    the_line_is_pruned(grown(TaggedLine(tmp_path / "line", registry_server, "pruned")))


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 6])
def test_a_killed_prune_is_finished_by_the_next(line: TaggedLine, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends before its first, second, ... removal in MLflow."""
    client = line.registry._store.client
    made = 0

    def dying(call: Any) -> Any:
        def counted(*words: Any) -> Any:
            nonlocal made
            made += 1
            if made == calls:
                raise KeyboardInterrupt
            return call(*words)

        return counted

    with monkeypatch.context() as patch:
        for name in ("delete_logged_model", "delete_run", "delete_model_version"):
            patch.setattr(client, name, dying(getattr(client, name)))
        with pytest.raises(KeyboardInterrupt):
            prune(line).remove(Request("ann"))
    left = set(line.registry._store.versions("demo-classifier")) - {1, 2, 4, 6}
    with pytest.raises(SamifError, match="is being removed by 'samif registry prune'"):
        line.registry.promotions("demo", line.params).promote(min(left), Request("bob"), lambda _: None)  # type: ignore[arg-type,return-value]
    finished = prune(line, days=10_000).remove(Request("cleaner"))
    assert {item.reason for item in finished if not item.kept} == {"its removal was begun"}
    assert set(line.registry._store.versions("demo-classifier")) == {1, 2, 4, 6}
    held = {version.run_id for version in line.registry._store.versions("demo-classifier").values()}
    runs = line.registry._store.runs("demo", "tags.kind = 'classifier'")
    assert {run.info.run_id for run in runs} == held
    assert len(fold(Journal(line.registry._store, "demo").read().entries).pruned) == 2


def test_what_is_promoted_registered_or_pointed_at_meanwhile_stays(
    line: TaggedLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the removal: 3 is promoted, 5 gets an alias by hand, 7 is registered."""
    store, done = line.registry._store, False
    real = Journal.write

    def meanwhile(journal: Any, chain: Any, kind: Any, who: str, why: str, **facts: Any) -> Any:
        nonlocal done
        if not done:
            done = True
            real(journal, journal.read(), "promote", "bob", "", version=3)
            store.client.set_registered_model_alias("demo-classifier", "held", "5")
            assert line.add("s2", "s1", wing=ROWS["hook"]) == 7
        return real(journal, chain, kind, who, why, **facts)

    monkeypatch.setattr(Journal, "write", meanwhile)
    prune(line).remove(Request("ann"))
    assert set(store.versions("demo-classifier")) == {1, 2, 3, 4, 5, 7}  # 6 was the newest until then


def test_registering_the_same_again_makes_a_version_young(line: TaggedLine) -> None:
    store = line.registry._store
    at = (datetime.now(UTC) + LATER).isoformat()
    store.client.set_model_version_tag("demo-classifier", "3", "last_registered", at)
    assert names(prune(line).look(), False) == ["classifier/5"]
    line.registry.register_decoder("demo", line.layout.decoder, line.decoder)
    assert "last_registered" in store.version("demo-decoder", 1).tags


def test_decoders_comparisons_and_broken_off_registrations(line: TaggedLine) -> None:
    store = line.registry._store
    (line.layout.decoder / "decoder.safetensors").write_bytes(b"another")
    from samif.io.hashing import file_sha256

    def another(content: bytes) -> int:
        (line.layout.decoder / "decoder.safetensors").write_bytes(content)
        sha256 = file_sha256(line.layout.decoder / "decoder.safetensors")
        return line.registry.register_decoder("demo", line.layout.decoder, sha256)

    assert (another(b"two"), another(b"three")) == (2, 3)
    made = {
        name: line.registry.record_comparison(
            "demo", {"comparison": name, "before": "demo-classifier/4", "after": after}, lambda f: (f / "x").touch()
        )
        for name, after in (("gone", "demo-classifier/3"), ("kept", "demo-classifier/6"))
    }
    experiment = store.client.get_experiment_by_name("demo").experiment_id
    broken = store.client.create_run(experiment, 0, {"kind": "classifier", "filled": datetime.now(UTC).isoformat()})
    items = prune(line).remove(Request("ann"))
    assert set(names(items, False)) == {"classifier/3", "classifier/5", "decoder/2"}
    assert set(store.versions("demo-decoder")) == {1, 3}
    left = {run.info.run_id for run in store.runs("demo")}
    assert made["kept"] in left and not {made["gone"], broken.info.run_id} & left
    young = store.client.create_run(experiment, 0, {"kind": "classifier", "filled": (NOW + 9 * LATER).isoformat()})
    prune(line).remove(Request("ann"))
    assert young.info.run_id in {run.info.run_id for run in store.runs("demo")}


def test_the_command_lists_and_deletes_nothing_by_default(line: TaggedLine) -> None:
    assert flows.cli.prune.prune is not None
    words = ["registry", "prune", "--workspace", str(line.layout.root)]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0 and "nothing was removed: add --delete" in ran.output
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert told["deleted"] is False and {item["reason"] for item in told["items"]} >= {"alias champion"}
    assert CliRunner().invoke(app, [*words, "--days", "0"]).exit_code == 2
    assert len(line.registry._store.versions("demo-classifier")) == 6
