"""What the registry keeps of a canary: evidence of each replica as tags of the version, the decision in the journal.

Each replica writes a tag of its own and nobody else's, so no write is lost without any lock, and what a replica found
before it ended still counts. The journal decides: of several replicas that roll back at once one writes the entry
(docs/adr/0035).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from flows.registry.journal import Chain, Journal, JournalEntry, LostRaceError
from flows.registry.live_state import fold
from flows.registry.mlflow_store import MlflowStore
from flows.registry.promotion import CHALLENGER, CHAMPION
from flows.registry.version_ref import parse_ref
from samif.errors import GateFailed, IntegrityError, ObjectMissing, ServiceUnavailable
from samif.watch.canary import ENOUGH, CanaryEvidence, pooled

REFUSED_TAG = "canary"
"""Tag of a version that was rolled back as a canary: why."""
_TAG = re.compile(r"canary\.(\d{1,6})\.(\w+)")
"""`canary.ATTEMPT.REPLICA`: the evidence of one replica."""
ATTEMPTS = 10


@dataclass(frozen=True)
class CanaryRecord:
    """A version as a canary.

    Attributes:
        attempt: how often it was allowed again; evidence of earlier attempts does not count.
        refused: the entry by which it was rolled back; None where it may be a canary.
        evidence: replica -> what it found.
    """

    attempt: int
    refused: JournalEntry | None
    evidence: dict[str, CanaryEvidence]


class CanaryRecords:
    """The canaries of one line."""

    def __init__(self, store: MlflowStore, line: str) -> None:
        self._store, self._journal = store, Journal(store, line)
        self.model = f"{line}-classifier"

    def read(self, version: int) -> CanaryRecord:
        """What is known of a version.

        Raises:
            IntegrityError: the journal was tampered with.
            ObjectMissing: there is no such version.
            ServiceUnavailable: the registry does not answer.
        """
        with self._store.reading():
            return self._record(self._journal.read(), version)

    def publish(self, version: int, attempt: int, replica: str, evidence: CanaryEvidence) -> None:
        """Replace what a replica says of a version."""
        tag, text = f"canary.{attempt}.{replica}", evidence.model_dump_json()
        with self._store.writing():
            self._store.client.set_model_version_tag(self.model, str(version), tag, text)

    def roll_back(
        self, version: int, attempt: int, ref: str, why: str, numbers: dict[str, float]
    ) -> JournalEntry | None:
        """Withdraw a canary: journal it once per attempt, and take the alias that `ref` follows from the version.

        Returns:
            The entry, which may be that of another replica; None where a later attempt has begun.

        Raises:
            ServiceUnavailable: the registry does not answer, or its journal kept moving.
        """
        for _ in range(ATTEMPTS):
            with self._store.writing():
                chain = self._journal.read()
                record = self._record(chain, version)
                if record.attempt != attempt:
                    return None
                if record.refused is None:
                    try:
                        self._journal.write(chain, "refuse", "samif", why, version=version, canary=numbers)
                    except LostRaceError:
                        continue
                    record = self._record(self._journal.read(), version)
                self._withdraw(version, ref, why)
                return record.refused
        raise ServiceUnavailable(f"the journal of {self.model} kept moving; the rollback of the canary is tried again")

    def retry(self, ref: str, who: str) -> int | None:
        """Allow the version of `ref` as a canary again, or, where a rollback took its alias, the one that was rolled
        back last, which gets the alias back.

        Returns:
            The version; None where no canary is refused.

        Raises:
            ServiceUnavailable: see `roll_back`.
        """
        for _ in range(ATTEMPTS):
            with self._store.writing():
                chain = self._journal.read()
                refused, asked = fold(chain.entries).refused, parse_ref(ref)
                at = self._store.model(self.model).aliases.get(asked.alias or "")
                wanted = asked.number or (int(at) if at else None)
                found = [entry.version for entry in refused if wanted in (None, entry.version)]
                if not found or (version := found[-1]) is None:
                    return None
                try:
                    self._journal.write(chain, "retry", who, f"asked for by {ref}", version=version)
                except LostRaceError:
                    continue
                client = self._store.client
                client.delete_model_version_tag(self.model, str(version), REFUSED_TAG)
                if asked.alias not in (None, CHAMPION) and at is None:
                    client.set_registered_model_alias(self.model, asked.alias, str(version))
                return version
        raise ServiceUnavailable(f"the journal of {self.model} kept moving; try again")

    def passed(self, version: int) -> dict[str, float]:
        """The numbers of a canary that may be promoted.

        Raises:
            GateFailed: it was rolled back, or was given too few requests.
        """
        record, name = self.read(version), f"{self.model}/{version}"
        if record.refused is not None:
            raise GateFailed(
                f"{name} was rolled back as a canary on {record.refused.time:%Y-%m-%d} ({record.refused.why}); "
                "register a better version"
            )
        evidence = pooled(record.evidence.values())
        if evidence.compared < ENOUGH:
            raise GateFailed(
                f"{name} was compared with the champion on {evidence.compared} requests as a canary, {ENOUGH} are "
                "needed; serve it with 'samif serve --canary' for longer"
            )
        return evidence.numbers

    def newest(self) -> int:
        """The newest version that was a canary.

        Raises:
            ObjectMissing: there is none.
        """
        with self._store.reading():
            versions = self._store.versions(self.model)
        found = [number for number, version in versions.items() if canary_state(version.tags) is not None]
        if not found:
            raise ObjectMissing(f"no version of {self.model} was a canary; start one with 'samif serve --canary'")
        return max(found)

    def _record(self, chain: Chain, version: int) -> CanaryRecord:
        attempt = sum(entry.kind == "retry" and entry.version == version for entry in chain.entries)
        tags = self._store.version(self.model, version).tags
        return CanaryRecord(attempt, fold(chain.entries).refusal(version), _evidence(tags, attempt))

    def _withdraw(self, version: int, ref: str, why: str) -> None:
        client, aliases = self._store.client, self._store.model(self.model).aliases
        client.set_model_version_tag(self.model, str(version), REFUSED_TAG, f"rolled back: {why}")
        for alias in {CHALLENGER, parse_ref(ref).alias or CHALLENGER} - {CHAMPION}:
            if alias in aliases and int(aliases[alias]) == version:
                client.delete_registered_model_alias(self.model, alias)


def canary_state(tags: Mapping[str, str]) -> str | None:
    """What the tags of a version say of it as a canary, in a few words; None where it never was one."""
    attempts = [int(match[1]) for match in map(_TAG.fullmatch, tags) if match]
    requests = pooled(_evidence(tags, max(attempts)).values()).requests if attempts else 0
    if REFUSED_TAG in tags:
        return f"canary {tags[REFUSED_TAG]} (after {requests} requests)"
    return f"canary: {requests} requests, no check has stopped it" if attempts else None


def _evidence(tags: Mapping[str, str], attempt: int) -> dict[str, CanaryEvidence]:
    found = {}
    for tag, text in tags.items():
        match = _TAG.fullmatch(tag)
        if match and int(match[1]) == attempt:
            try:
                found[match[2]] = CanaryEvidence.model_validate_json(text)
            except ValidationError:
                raise IntegrityError(f"the tag '{tag}' of a version cannot be read; delete it in MLflow") from None
    return found
