"""What is live and what was, as the journal says: a pure fold over its entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from flows.registry.journal import JournalEntry


@dataclass(frozen=True)
class Term:
    """A stretch of time in which one version was live. `how` it came to be, `decision` has who and why."""

    version: int
    since: datetime
    until: datetime | None
    how: Literal["promoted", "rolled back", "found live"]
    decision: JournalEntry


@dataclass(frozen=True)
class Live:
    """The state of a line.

    Attributes:
        stack: what was live, oldest first; the last is live now, the one before is where a rollback leads. A rollback
            takes one off, so several in a row lead ever further back, and never to what was just found bad.
        unfinished: a decision whose alias was not yet read back.
        approvals: given since the last change, and so still to be used.
        terms: what was live when, oldest first.
        refused: `refuse` entries of canaries that were rolled back and not allowed again, oldest first.
        pruned: versions that are removed or about to be; a rollback passes over them.
    """

    stack: tuple[int, ...] = ()
    unfinished: JournalEntry | None = None
    approvals: tuple[JournalEntry, ...] = ()
    terms: tuple[Term, ...] = ()
    refused: tuple[JournalEntry, ...] = ()
    pruned: frozenset[int] = frozenset()

    @property
    def version(self) -> int | None:
        """The live version."""
        return self.stack[-1] if self.stack else None

    @property
    def previous(self) -> int | None:
        """Where a rollback leads."""
        return self.stack[-2] if len(self.stack) > 1 else None

    @property
    def decided(self) -> Live:
        """The state once the unfinished decision is carried out; the same state where there is none."""
        if self.unfinished is None:
            return self
        return self._after(self.unfinished, self.unfinished.time)

    def _after(self, decision: JournalEntry, at: datetime) -> Live:
        back = decision.kind == "rollback"
        assert decision.version is not None  # every decision names its version
        stack = self.stack[:-1] if back else (*self.stack, decision.version)
        closed = tuple(replace(term, until=at) if term.until is None else term for term in self.terms)
        term = Term(decision.version, at, None, "rolled back" if back else "promoted", decision)
        return Live(stack, None, (), (*closed, term), self.refused, self.pruned)

    def refusal(self, version: int | None) -> JournalEntry | None:
        """The entry by which a version was rolled back as a canary; None where it may be one."""
        return next((entry for entry in self.refused if entry.version == version), None)


def fold(entries: Sequence[JournalEntry]) -> Live:
    """The state after all entries."""
    live = Live()
    for entry in entries:
        if entry.kind == "adopt" and entry.version is not None:
            term = Term(entry.version, entry.time, None, "found live", entry)
            live = replace(live, stack=(entry.version,), terms=(*live.terms, term))
        elif entry.kind == "approve":
            live = replace(live, approvals=(*live.approvals, entry))
        elif entry.kind in ("promote", "rollback"):
            live = replace(live, unfinished=entry)
        elif entry.kind == "done" and live.unfinished is not None:
            live = live._after(live.unfinished, entry.time)
        elif entry.kind == "void":
            live = replace(live, unfinished=None)
        elif entry.kind == "refuse":
            live = replace(live, refused=(*live.refused, entry))
        elif entry.kind == "retry":
            live = replace(live, refused=tuple(e for e in live.refused if e.version != entry.version))
        elif entry.kind == "prune":
            pruned = live.pruned.union(entry.pruned)
            live = replace(live, pruned=pruned, stack=tuple(v for v in live.stack if v not in pruned))
    return live
