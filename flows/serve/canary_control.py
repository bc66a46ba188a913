"""Which version is the canary, what is known of it, and whether it goes on; replicas share that by the registry."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.registry.canary import CanaryRecords
from flows.runtime.system_errors import sentence_of
from flows.serve.answers import CanaryState, CanaryView, CheckView, Model, model_of, slot_view
from flows.serve.model_slot import ModelSlot
from flows.serve.settings import CanarySettings
from flows.serve.versions import Source, Version
from samif.errors import ObjectMissing
from samif.watch.canary import BOUNDS, CanaryEvidence, pooled

POLL_SECONDS = 1.0
"""Time between two exchanges of evidence with the registry."""

logger = logging.getLogger(__name__)


def request_key(body: bytes, part: str | None) -> bytes:
    """What decides which version answers: the id of the part where one is given, else the image's bytes."""
    return hashlib.sha256(body if part is None else part.encode()).digest()


def share_of(key: bytes, title: str) -> float:
    """Where a request stands in 0..1 for the canary `title` (NAME/VERSION): the same on every replica, at any time.

    Another canary takes other requests, so that the same parts are not always those that try a version.
    """
    return int.from_bytes(hashlib.sha256(key + title.encode()).digest()[:8], "big") / 2**64


class CanarySlot(ModelSlot):
    """A slot for a version with any encoder and decoder; those that are the champion's are shared with it."""

    def _load(self, name: str, number: int | None, folder: Path | None = None) -> Version:
        return self._source.load(name, number, self._beside() if self._beside else None, folder=folder)

    def _last_served(self) -> None:
        """Nothing: only the registry says whether the canary was rolled back."""


@dataclass(frozen=True)
class Trial:
    """A version as a canary: what this replica and the others found, why it is stopped, whether the journal says so.

    `attempt` as in `flows.registry.canary.CanaryRecord`.
    """

    version: Version
    attempt: int
    mine: CanaryEvidence
    others: CanaryEvidence
    why: str | None = None
    journalled: bool = False

    @property
    def all(self) -> CanaryEvidence:
        """The evidence of all replicas, as far as it is known here."""
        return self.mine + self.others


class CanaryControl:
    """The canary of one replica. `version_for` and `add` are called by its worker, the rest by its poller.

    Args:
        state: the folder that replicas of this machine share.
        replica: id of the replica, unlike that of any other.
        champion: gives the live version.
        changed: called when the slot has loaded or refused a version.
    """

    def __init__(
        self,
        source: Source,
        settings: CanarySettings,
        state: Path,
        replica: str,
        champion: Callable[[], Version | None],
        changed: Callable[[ModelSlot], None],
    ) -> None:
        self.slot = CanarySlot(source, settings.ref, champion, changed)
        self._source, self._settings, self._state, self._replica = source, settings, state, replica
        self._champion = champion
        self._lock = threading.Lock()
        self._trial: Trial | None = None
        self._off: str | None = None
        self._next = 0.0

    def version_for(self, key: bytes) -> Version | None:
        """The version that answers a request in the champion's place; None where the champion does."""
        trial = self._trial
        if trial is None or trial.why is not None or self._marker(trial).exists():
            return None
        version = trial.version
        return version if share_of(key, version.title) < self._settings.percent / 100.0 else None

    def add(self, version: Version, observations: Mapping[str, float], requests: int = 0) -> None:
        """Take observations of a canary, and stop it if they are enough."""
        with self._lock:
            trial = self._trial
            if trial is not None and trial.version is version:
                self._trial = self._judged(replace(trial, mine=trial.mine.after(observations, requests)))

    def poll(self) -> None:
        """Follow the alias and exchange evidence, at most every POLL_SECONDS; journal a rollback. While the registry is
        away, the canary goes on and is still stopped."""
        trial = self._trial
        pending = trial is not None and trial.why is not None and not trial.journalled
        if time.monotonic() < self._next and not pending:
            return
        self._next = time.monotonic() + POLL_SECONDS
        try:
            self._poll()
            self.slot.registry_error = None
        except Exception as error:
            if self.slot.registry_error is None:
                logger.warning("the canary %s cannot be followed", self._settings.ref, exc_info=error)
            self.slot.registry_error = sentence_of(error)

    def view(self) -> CanaryView:
        """What a replica shows of its canary."""
        trial = self._trial
        state: CanaryState = "off" if trial is None else "running" if trial.why is None else "rolled back"
        found = trial.all if trial else CanaryEvidence()
        checks = {
            name: CheckView(mean=round(item.mean, 4), bound=BOUNDS[name], observations=item.count)
            for name, item in found.checks.items()
        }
        return CanaryView(
            slot=slot_view(self.slot),
            percent=self._settings.percent,
            state=state,
            model=Model(**model_of(trial.version)) if trial else None,
            why=self._off if trial is None else trial.why,
            requests=found.requests,
            checks=checks,
        )

    def _poll(self) -> None:
        records = self._source.canaries(self._settings.ref)
        trial = self._trial
        if trial is not None and trial.why is None and self._marker(trial).exists():
            self._replace(why=self._marker(trial).read_text(encoding="utf-8"))
        if (trial := self._trial) is not None and trial.why is not None and not trial.journalled:
            self._roll_back(records, trial, trial.why)
        try:
            name, number = self._source.resolve(self._settings.ref)
        except ObjectMissing as error:  # withdrawn, by a rollback or by hand
            self._end(str(error))
            return
        champion = self._champion()
        assert number is not None  # a folder is no canary
        if champion is None:
            self._end(f"{name}/{number} waits for a champion to be compared with")
            return
        if (name, number) == (champion.name, champion.number):
            self._end(f"{name}/{number} is live itself")
            return
        record = records.read(number)
        if record.refused is not None:
            when = f"{record.refused.time:%Y-%m-%d %H:%M}"
            self._end(
                f"{name}/{number} was rolled back as a canary on {when} ({record.refused.why}); it is not started "
                "again without --retry-canary"
            )
            return
        trial, others = self._trial, pooled(e for who, e in record.evidence.items() if who != self._replica)
        if trial is not None and (trial.version.number, trial.attempt) == (number, record.attempt):
            if trial.mine != record.evidence.get(self._replica, CanaryEvidence()):
                records.publish(number, trial.attempt, self._replica, trial.mine)
            self._replace(others=others)
            return
        self._trial = None  # the alias has left it
        self.slot.poll()
        live = self.slot.state.live
        if live is None or live.number != number:
            self._off = f"{name}/{number} could not be loaded"
            return
        with self._lock:
            mine = record.evidence.get(self._replica, CanaryEvidence())
            self._trial = self._judged(Trial(live, record.attempt, mine, others))

    def _roll_back(self, records: CanaryRecords, trial: Trial, why: str) -> None:
        number = trial.version.number
        assert number is not None  # a folder is no canary
        records.publish(number, trial.attempt, self._replica, trial.mine)
        entry = records.roll_back(number, trial.attempt, self._settings.ref, why, trial.all.numbers)
        if entry is None:  # it was allowed again meanwhile
            self._trial = None
        else:
            self._replace(why=entry.why, journalled=True)

    def _end(self, why: str) -> None:
        """No canary; one that was rolled back stays to be seen."""
        with self._lock:
            if self._trial is None or self._trial.why is None:
                self._trial, self._off = None, why

    def _replace(self, **changes: object) -> None:
        with self._lock:
            if self._trial is not None:
                self._trial = self._judged(replace(self._trial, **changes))  # type: ignore[arg-type]

    def _judged(self, trial: Trial) -> Trial:
        """The trial, stopped where the evidence is enough. Other replicas of this machine see that at once."""
        if trial.why is not None or (why := trial.all.reason) is None:
            return trial
        title, requests = trial.version.title, trial.all.requests
        logger.warning("the canary %s is rolled back after %d requests: %s", title, requests, why)
        marker = self._marker(trial)
        try:
            part = marker.with_suffix(f".{self._replica}")
            part.write_text(why, encoding="utf-8")
            part.replace(marker)  # whole or not at all
        except OSError:  # a full disk must not fail a request; the others learn it from the registry
            logger.warning("%s cannot be written", marker, exc_info=True)
        return replace(trial, why=why)

    def _marker(self, trial: Trial) -> Path:
        return self._state / f"canary-{trial.version.number}-{trial.attempt}.stopped"
