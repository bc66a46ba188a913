"""The journal of a line: who put which version live, when and why; append-only, hash-chained, in the tracking store.

Each entry is a version of the registered model `<line>-journal`. MLflow gives out version numbers inside one database
transaction, so every machine that shares the store sees the entries in one order, and an entry is there whole or not
at all. An entry names the digest of the entry that it was written upon; of several written upon the same one, the
first counts and the others are void. That makes `Journal.append` a compare-and-set without any lock (docs/adr/0007).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from flows.registry.mlflow_store import MlflowStore
from flows.runtime.process import ProcessIdentity, this_process
from samif.config import Strict
from samif.config.strict import is_none
from samif.errors import ConfigError, IntegrityError

Kind = Literal["adopt", "approve", "promote", "rollback", "done", "void", "repair", "refuse", "retry", "prune"]
ENTRY_TAG, DIGEST_TAG, HEAD_TAG = "entry", "digest", "journal_head"


class JournalEntry(Strict):
    """One line of the journal.

    `promote` and `rollback` are decisions, taken before the alias moves; `done` says that the alias was read back as
    decided, `void` that the decision came to nothing; both name the decision in `closes`. `approve` is a person's yes
    to one verdict on one card. `adopt` records what was live before the journal began, `repair` that the alias stood
    elsewhere than the journal says and was put back. `refuse` says that a canary was rolled back, `retry` that the
    version may be a canary again. `prune` names the versions that are removed from then on.
    """

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    number: int
    after: str
    """Digest of the entry before; empty for the first."""
    id: str
    kind: Kind
    time: AwareDatetime
    who: str = Field(max_length=200)
    why: str = Field(default="", max_length=2000)
    process: ProcessIdentity
    was: int | None = None
    """Version that was live, or that the alias stood at."""
    version: int | None = None
    """Version that is to be live, is live or is approved."""
    card: str | None = None
    verdict: str | None = None
    outcome: str | None = None
    evidence: str | None = None
    """MLflow run that holds the verdict."""
    approved_by: str | None = None
    forced: bool = False
    overrode: tuple[str, ...] = ()
    """What was overridden by force."""
    closes: str | None = None
    canary: dict[str, float] | None = Field(default=None, exclude_if=is_none)
    """What was measured of the version as a canary: number of requests, and mean by check."""
    pruned: tuple[int, ...] = Field(default=(), exclude_if=lambda versions: not versions)
    """Versions that are removed; left out of the text where there are none, so that older entries keep their digest."""

    @property
    def text(self) -> str:
        """The canonical JSON that is stored and hashed."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def digest(self) -> str:
        return _sha256(self.text)

    @property
    def summary(self) -> str:
        """One line for the registry's own page."""
        force = "FORCED " if self.forced else ""
        step = f"{self.was or 'nothing'} -> {self.version or 'nothing'}"
        if self.kind in ("refuse", "retry"):
            step = f"canary {self.version}"
        if self.pruned:
            step = f"{len(self.pruned)} versions"
        return f"{force}{self.kind} {step} by {self.who}" + (f": {self.why[:500]}" if self.why else "")


@dataclass(frozen=True)
class StoredEntry:
    """An entry of the journal as the store holds it, not checked yet."""

    number: int
    text: str
    digest: str


@dataclass(frozen=True)
class Chain:
    """The entries that count, oldest first."""

    entries: tuple[JournalEntry, ...] = ()

    @property
    def head(self) -> str:
        """Digest of the last entry; empty before the first."""
        return self.entries[-1].digest if self.entries else ""

    def holds(self, entry: JournalEntry) -> bool:
        return any(found.id == entry.id for found in self.entries)


class LostRaceError(Exception):
    """Another process appended after the same entry first; read and decide again."""


def chain_of(slots: Iterable[StoredEntry], line: str, witness: str = "") -> Chain:
    """Check every slot and pick the entries that count.

    Args:
        witness: `NUMBER:DIGEST` of an entry that must be there, kept outside the journal; empty checks nothing.

    Raises:
        IntegrityError: a slot is missing, unreadable or altered, an entry does not fit any entry before it, or the
            witnessed entry is gone.
    """
    entries: list[JournalEntry] = []
    known = {""}
    for place, slot in enumerate(sorted(slots, key=lambda slot: slot.number), start=1):
        if slot.number != place:
            raise _tampered(line, f"entry {place} was removed")
        if _sha256(slot.text) != slot.digest:
            raise _tampered(line, f"entry {place} was altered: it no longer has its digest {slot.digest[:12]}")
        try:
            entry = JournalEntry.model_validate_json(slot.text)
        except ValidationError as error:
            raise _tampered(line, f"entry {place} cannot be read ({error.errors()[0]['msg']})") from None
        head = entries[-1].digest if entries else ""
        if entry.after == head and entry.number == len(entries) + 1:
            entries.append(entry)
            known.add(entry.digest)
        elif entry.after not in known:
            raise _tampered(line, f"entry {place} follows {entry.after[:12]}, which no entry before it is")
        # else: written upon an entry that had a successor by then; it lost the race and never counted
    if witness:
        number, _, digest = witness.partition(":")
        if not number.isdigit() or int(number) > len(entries) or entries[int(number) - 1].digest != digest:
            raise _tampered(line, f"it had an entry {number} with digest {digest[:12]}, which is gone")
    return Chain(tuple(entries))


class Journal:
    """The journal of one line. Call `read` inside the store's `reading` or `writing`, `append` inside `writing`."""

    def __init__(self, store: MlflowStore, line: str) -> None:
        self._store, self.line = store, line
        self.model = f"{line}-journal"

    def read(self) -> Chain:
        """All entries that count; IntegrityError where the journal was tampered with."""
        classifier = self._store.find_model(f"{self.line}-classifier")
        witness = classifier.tags.get(HEAD_TAG, "") if classifier else ""
        versions = self._store.find_versions(self.model).items()
        slots = [StoredEntry(number, v.tags.get(ENTRY_TAG, ""), v.tags.get(DIGEST_TAG, "")) for number, v in versions]
        return chain_of(slots, self.line, witness)

    def write(
        self, chain: Chain, kind: Kind, who: str, why: str, process: ProcessIdentity | None = None, **facts: Any
    ) -> Chain:
        """Write an entry of `process`, by default this one, upon the last one of `chain`.

        Raises:
            ConfigError: who or why are too long.
            LostRaceError: that entry has another successor.
        """
        try:
            entry = JournalEntry(
                number=len(chain.entries) + 1,
                after=chain.head,
                id=uuid4().hex,
                kind=kind,
                time=datetime.now(UTC),
                who=who,
                why=why,
                process=process or this_process(),
                **facts,
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"the journal cannot take '{first['loc'][0]}': {first['msg'].lower()}") from None
        return self.append(entry)

    def append(self, entry: JournalEntry) -> Chain:
        """Write `entry` upon the entry that it names.

        Raises:
            LostRaceError: that entry has another successor.
        """
        if entry.number == 1:
            self._store.make_model(self.model)
        self._store.client.create_model_version(
            self.model,
            f"journal:/{self.line}/{entry.number}",
            tags={ENTRY_TAG: entry.text, DIGEST_TAG: entry.digest, "kind": entry.kind},
            description=entry.summary,
            await_creation_for=0,
        )
        chain = self.read()
        if not chain.holds(entry):
            raise LostRaceError
        # A second witness: whoever cuts off the journal's end, or deletes it, must know of this one too.
        witness = f"{len(chain.entries)}:{chain.head}"
        self._store.client.set_registered_model_tag(f"{self.line}-classifier", HEAD_TAG, witness)
        return chain


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tampered(line: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"the journal '{line}-journal' was tampered with: {what}; nothing is promoted until the registry is restored "
        "from a backup"
    )
