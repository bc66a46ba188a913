"""Remove the versions of a line that nobody needs (docs/adr/0037).

What is removed is written into the journal first, upon the entry that it was decided on: a promotion that was decided
meanwhile makes the prune decide again, and a promotion after it finds its version gone. A prune that was killed is
finished by the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flows.registry.journal import Journal, LostRaceError
from flows.registry.live_state import Live, fold
from flows.registry.mlflow_store import REGISTERED_TAG, MlflowStore
from flows.registry.ownership import check_promotion
from flows.registry.promotion import ATTEMPTS
from flows.registry.promotion_request import Request
from flows.registry.removal import remove_run, remove_version, size_of_run, size_of_version
from flows.registry.retention import Candidate, Retention, reasons_to_keep
from flows.registry.run_entry import FILLED_TAG
from samif.config import Params
from samif.errors import ServiceUnavailable

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class PrunedItem:
    """A version, or a run without one: its size in bytes, and why it is kept or goes."""

    name: str
    session: str
    seen: str
    bytes: int
    kept: bool
    reason: str


@dataclass(frozen=True)
class _Plan:
    live: Live
    head: str
    classifiers: dict[int, ModelVersion]
    decoders: dict[int, ModelVersion]
    runs: list[Run]
    why_kept: dict[int, str]
    why_decoder: dict[int, str]

    @property
    def versions(self) -> list[int]:
        return [number for number in self.classifiers if number not in self.why_kept]


class Prune:
    """Retention of one line.

    Args:
        params: of the requesting workspace; only a workspace of the line may prune.
        now: the time by which ages count.
    """

    def __init__(
        self, store: MlflowStore, line: str, params: Params, retention: Retention, now: datetime | None = None
    ) -> None:
        self._store, self._line, self._params, self._retention = store, line, params, retention
        self._now = now or datetime.now(UTC)
        self._journal = Journal(store, line)
        self._model = f"{line}-classifier"

    def look(self) -> list[PrunedItem]:
        """What would be kept and removed, and why; changes nothing.

        Raises:
            ObjectMissing: the line has no versions.
            IntegrityError: the journal was tampered with.
            ServiceUnavailable: the registry does not answer.
        """
        with self._store.reading():
            return list(self._items(self._plan()))

    def remove(self, request: Request) -> list[PrunedItem]:
        """Remove what `look` says, as it is then; what was kept and removed.

        Raises:
            ForeignLineError: the line belongs to another workspace.
            ObjectMissing, IntegrityError: as of `look`.
            ServiceUnavailable: the registry does not answer; what is left is removed by the next call.
        """
        check_promotion(self._store, self._params, self._model)
        for _ in range(ATTEMPTS):
            with self._store.writing():
                plan = self._plan()
                items = list(self._items(plan))
                try:
                    self._announce(plan, request)
                except LostRaceError:
                    continue
                for number in plan.versions:
                    # an alias may have been moved there by hand since
                    if number not in map(int, self._store.model(self._model).aliases.values()):
                        remove_version(self._store, plan.classifiers[number])
                for number, version in plan.decoders.items():
                    if number not in plan.why_decoder and not self._is_used(number):
                        remove_version(self._store, version)
                for run in plan.runs:
                    remove_run(self._store, run)
                return items
        raise ServiceUnavailable(f"the journal of {self._model} kept moving; prune again")

    def _announce(self, plan: _Plan, request: Request) -> None:
        """Write into the journal what goes, unless an earlier prune has."""
        new = tuple(number for number in plan.versions if number not in plan.live.pruned)
        if new:
            chain = self._journal.read()
            if chain.head != plan.head:
                raise LostRaceError
            self._journal.write(chain, "prune", request.who, request.why, was=plan.live.version, pruned=new)

    def _is_used(self, decoder: int) -> bool:
        """Whether a classifier version names a decoder now, or a run has registered the decoder again meanwhile."""
        found = self._store.find_versions(f"{self._line}-decoder").get(decoder)
        named = {_decoder(version) for version in self._store.find_versions(self._model).values()}
        return decoder in named or found is None or self._is_young(_seen(found))

    def _is_young(self, at: datetime) -> bool:
        return self._now - at < timedelta(days=self._retention.days)

    def _plan(self) -> _Plan:
        model = self._store.model(self._model)
        chain = self._journal.read()
        live = fold(chain.entries)
        classifiers = self._store.versions(self._model)
        candidates = [
            Candidate(number, v.tags.get("session", ""), v.tags.get("after"), _decoder(v), _seen(v))
            for number, v in classifiers.items()
        ]
        aliases = {alias: int(number) for alias, number in model.aliases.items()}
        why_kept = reasons_to_keep(candidates, aliases, live, self._retention, self._now)
        decoders = self._store.find_versions(f"{self._line}-decoder")
        why_decoder = self._decoders_to_keep(decoders, classifiers, why_kept)
        evidence = {entry.evidence for entry in chain.entries}
        going = {f"{self._model}/{number}" for number in classifiers if number not in why_kept}
        there = {f"{self._model}/{number}" for number in classifiers} - going
        held = {str(v.run_id) for v in (*classifiers.values(), *decoders.values())}
        runs = [
            run
            for run in self._store.runs(self._line)
            if run.data.tags.get("kind") in ("classifier", "decoder", "comparison")
            and run.info.run_id not in held | evidence
            and self._is_left(run, there)
        ]
        return _Plan(live, chain.head, classifiers, decoders, runs, why_kept, why_decoder)

    def _decoders_to_keep(
        self, decoders: dict[int, ModelVersion], classifiers: dict[int, ModelVersion], why_kept: dict[int, str]
    ) -> dict[int, str]:
        kept = {}
        for number, version in decoders.items():
            users = [n for n, classifier in classifiers.items() if n in why_kept and _decoder(classifier) == number]
            if users:
                kept[number] = f"{max(users)} was made with it"
            elif self._is_young(_seen(version)):
                kept[number] = f"registered in the last {self._retention.days:g} days"
            elif number == max(decoders):
                kept[number] = "the newest decoder"
        return kept

    def _is_left(self, run: Run, there: set[str]) -> bool:
        """Whether a run that no version holds is old and of no use: a registration that was broken off, or a comparison
        with a version that is gone."""
        filled = run.data.tags.get(FILLED_TAG)
        times = (run.info.start_time or 0, run.info.end_time or 0)
        at = datetime.fromisoformat(filled) if filled else datetime.fromtimestamp(max(times) / 1000, UTC)
        if self._is_young(at):
            return False
        tags = run.data.tags
        return tags["kind"] != "comparison" or not {tags.get("before"), tags.get("after")} <= {*there, "nothing"}

    def _items(self, plan: _Plan) -> Iterator[PrunedItem]:
        for model, versions, kept in (
            (self._model, plan.classifiers, plan.why_kept),
            (f"{self._line}-decoder", plan.decoders, plan.why_decoder),
        ):
            for number, version in versions.items():
                begun = model == self._model and number in plan.live.pruned
                reason = "its removal was begun" if begun else "nobody needs it"
                yield PrunedItem(
                    f"{model}/{number}", version.tags.get("session", ""), f"{_seen(version):%Y-%m-%d}",
                    size_of_version(self._store, version), number in kept, kept.get(number, reason),
                )  # fmt: skip
        for run in plan.runs:
            compared = run.data.tags["kind"] == "comparison"
            reason = "compares a version that is gone" if compared else "its registration was broken off"
            seen = f"{datetime.fromtimestamp(run.info.start_time / 1000, UTC):%Y-%m-%d}"
            yield PrunedItem(f"run {run.info.run_name}", "", seen, size_of_run(self._store, run), False, reason)


def _decoder(version: ModelVersion) -> int | None:
    number = version.tags.get("decoder_version")
    return int(number) if number and "card_digest" in version.tags else None


def _seen(version: ModelVersion) -> datetime:
    made = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    again = version.tags.get(REGISTERED_TAG)
    return made if again is None else max(made, datetime.fromisoformat(again))
