"""The journal's chain: whatever the order of writers, one entry follows another; whatever is tampered with shows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.registry.journal import Chain, JournalEntry, Kind, StoredEntry, chain_of
from flows.registry.live_state import fold
from flows.runtime.process import ProcessIdentity
from samif.errors import SamifError

PROCESS = ProcessIdentity(host="h", pid=1, started=0.0)
START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(chain: Chain, name: str, kind: Kind = "promote", **facts: object) -> JournalEntry:
    """An entry written upon what its writer has read."""
    number = len(chain.entries) + 1
    time = START + timedelta(minutes=number)
    return JournalEntry.model_validate(
        {"number": number, "after": chain.head, "id": name, "kind": kind, "time": time, "who": name, "process": PROCESS}
        | facts
    )


def slot(number: int, of: JournalEntry) -> StoredEntry:
    return StoredEntry(number, of.text, of.digest)


def written(count: int) -> list[StoredEntry]:
    """A journal of so many entries by one writer."""
    slots: list[StoredEntry] = []
    for number in range(1, count + 1):
        slots.append(slot(number, entry(chain_of(slots, "demo"), f"e{number}", why="because")))
    return slots


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_of_many_writers_upon_one_entry_the_first_counts(steps: list[tuple[int, bool]]) -> None:
    """Each writer reads now and then, and writes upon what it read last; nobody else's entry is lost or doubled."""
    slots: list[StoredEntry] = []
    read = dict.fromkeys(range(4), Chain())
    accepted: list[str] = []
    for number, (writer, reads) in enumerate(steps, start=1):
        if reads:
            read[writer] = chain_of(slots, "demo")
        mine = entry(read[writer], f"{writer}-{number}")
        wins = read[writer].head == chain_of(slots, "demo").head
        slots.append(slot(number, mine))
        found = chain_of(slots, "demo")
        assert found.holds(mine) is wins
        accepted += [mine.id] if wins else []
        assert [e.id for e in found.entries] == accepted
        assert [e.number for e in found.entries] == list(range(1, len(accepted) + 1))


@given(st.integers(1, 8), st.data())
def test_an_altered_entry_shows(count: int, data: st.DataObject) -> None:
    slots = written(count)
    at = data.draw(st.integers(0, count - 1))
    content = json.loads(slots[at].text)
    content[data.draw(st.sampled_from(["who", "why", "id", "time", "version", "forced"]))] = data.draw(
        st.sampled_from(["mallory", 7, None, "2020-01-01T00:00:00Z"])
    )
    text = json.dumps(content)
    with pytest.raises(SamifError, match=f"entry {at + 1} was altered"):
        chain_of([*slots[:at], replace(slots[at], text=text), *slots[at + 1 :]], "demo")


@given(st.integers(2, 8), st.data())
def test_an_entry_rewritten_with_its_digest_shows_in_the_next_one(count: int, data: st.DataObject) -> None:
    slots = written(count)
    at = data.draw(st.integers(0, count - 2))
    text = slots[at].text.replace('"why":"because"', '"why":"no reason"')
    forged = StoredEntry(at + 1, text, hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(SamifError, match=rf"entry {at + 2} follows .*, which no entry before it is"):
        chain_of([*slots[:at], forged, *slots[at + 1 :]], "demo")


@given(st.integers(1, 8), st.data())
def test_a_missing_entry_shows(count: int, data: st.DataObject) -> None:
    slots = written(count)
    witness = f"{count}:{slots[-1].digest}"
    at = data.draw(st.integers(0, count - 1))
    says = "which is gone" if at == count - 1 else f"entry {at + 1} was removed"
    with pytest.raises(SamifError, match=says):
        chain_of([*slots[:at], *slots[at + 1 :]], "demo", witness)
    with pytest.raises(SamifError, match="which is gone"):
        chain_of([], "demo", witness)
    assert len(chain_of(slots, "demo", witness).entries) == count


def test_the_witness_may_lag_but_not_lie() -> None:
    slots = written(3)
    assert len(chain_of(slots, "demo", f"2:{slots[1].digest}").entries) == 3
    for lie in (f"2:{slots[0].digest}", f"4:{slots[2].digest}", "x", f"0:{slots[0].digest}"):
        with pytest.raises(SamifError, match="which is gone"):
            chain_of(slots, "demo", lie)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 2}'])
def test_what_is_no_entry_shows(text: str) -> None:
    with pytest.raises(SamifError, match="entry 1 cannot be read"):
        chain_of([StoredEntry(1, text, hashlib.sha256(text.encode()).hexdigest())], "demo")


# What was live


def entries(*steps: tuple[Kind, int | None]) -> list[JournalEntry]:
    made = Chain()
    for kind, version in steps:
        closes = made.entries[-1].id if kind in ("done", "void") else None
        made = Chain((*made.entries, entry(made, f"{len(made.entries)}", kind, version=version, closes=closes)))
    return list(made.entries)


@given(st.lists(st.one_of(st.just(0), st.integers(1, 5)), max_size=20))
def test_a_rollback_always_undoes_the_last_promotion_that_still_counts(plan: list[int]) -> None:
    """0 is a rollback; the model is a plain stack."""
    stack: list[int] = []
    steps: list[tuple[Kind, int | None]] = []
    for number in plan:
        if number:
            stack.append(number)
            steps += [("promote", number), ("done", number)]
        elif len(stack) > 1:
            stack.pop()
            steps += [("rollback", stack[-1]), ("done", stack[-1])]
    live = fold(entries(*steps))
    assert live.stack == tuple(stack) and live.unfinished is None
    assert live.version == (stack[-1] if stack else None)
    assert live.previous == (stack[-2] if len(stack) > 1 else None)
    assert [term.until is None for term in live.terms] == [False] * (len(live.terms) - 1) + [True] * bool(live.terms)
    assert all(one.until == two.since for one, two in zip(live.terms, live.terms[1:], strict=False))


def test_a_decision_counts_once_it_is_done() -> None:
    begun = fold(entries(("promote", 1), ("done", 1), ("promote", 2)))
    assert (begun.version, begun.decided.version, begun.decided.previous) == (1, 2, 1)
    assert begun.unfinished is not None and begun.unfinished.version == 2
    void = fold(entries(("promote", 1), ("done", 1), ("promote", 2), ("void", 1)))
    assert (void.version, void.unfinished, len(void.terms)) == (1, None, 1)


def test_an_approval_is_used_up_by_the_next_change() -> None:
    given = fold(entries(("promote", 1), ("done", 1), ("approve", 2)))
    assert [a.version for a in given.approvals] == [2]
    assert fold(entries(("promote", 1), ("done", 1), ("approve", 2), ("promote", 2), ("done", 2))).approvals == ()
    assert len(fold(entries(("approve", 2), ("promote", 2), ("void", 1))).approvals) == 1
