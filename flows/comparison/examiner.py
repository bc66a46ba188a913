"""The evidence on a candidate: verification, scores beside the live version's on the same images, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from flows.comparison.scorer import Scorer
from flows.registry.promotion_request import Evidence
from flows.registry.registry import Registry
from flows.registry.verification import complaints, verify
from flows.workspace.layout import Layout
from flows.workspace.revision import lock_state
from samif.config import Params
from samif.dataset.model import Dataset
from samif.errors import ConfigError, DataError, IntegrityError, ObjectMissing
from samif.evaluate.model import Evaluation
from samif.io import files
from samif.versions.card import Card
from samif.versions.compare import Comparison, ScoredVersion, compare
from samif.versions.gates import VersionStatus, evaluate_gates
from samif.versions.verdict import Verdict


@dataclass(frozen=True)
class Side:
    """One version: what is known of it, and what it scored; `measured` is none where it could not be scored."""

    status: VersionStatus
    measured: ScoredVersion | None


@dataclass(frozen=True)
class Examination:
    """A candidate against a live version (none before the first promotion)."""

    before: Side | None
    after: Side
    comparison: Comparison | None
    verdict: Verdict
    dataset: Dataset | None


class Examiner:
    """Examines versions of one registered model in a workspace, by the gates of its params.yaml."""

    def __init__(self, layout: Layout, params: Params, registry: Registry) -> None:
        self._layout, self._params, self._registry = layout, params, registry
        self._sides: dict[str, Side] = {}
        self._scorer: Scorer | None = None

    def examine(self, candidate: str, champion: str | None) -> Examination:
        """Verify and score `candidate` and `champion` (each NAME/VERSION), and evaluate the gates."""
        after = self._side(candidate)
        before = self._side(champion) if champion else None
        policy = self._params.gates
        comparison = None
        if before and before.measured and after.measured:
            comparison = compare(
                before.measured,
                after.measured,
                policy.metric,
                policy.resamples,
                policy.confidence,
                policy.seed,
                policy.min_instances,
            )
        verdict = evaluate_gates(policy, after.status, before.status if before else None, comparison)
        return Examination(before, after, comparison, verdict, self._scorer.dataset if self._scorer else None)

    def evidence(self, candidate: str, champion: str | None) -> Evidence:
        """The verdict, kept in the registry."""
        examination = self.examine(candidate, champion)
        return Evidence(examination.verdict, self.keep(examination))

    def keep(self, examination: Examination, page: str | None = None) -> str:
        """Keep verdict and, where there is one, the page as an MLflow run; returns its id."""
        verdict = examination.verdict
        line = examination.after.status.card.line

        def write(folder: Path) -> None:
            files.commit(folder / "verdict.json", (verdict.model_dump_json(indent=1) + "\n").encode())
            if examination.comparison is not None:
                text = examination.comparison.model_dump_json(indent=1) + "\n"
                files.commit(folder / "comparison.json", text.encode())
            if page is not None:
                files.commit(folder / "compare.html", page.encode())

        tags = {
            "comparison": verdict.digest if page is None else f"{verdict.digest}-page",
            "verdict": verdict.digest,
            "outcome": verdict.outcome,
            "before": verdict.champion or "nothing",
            "after": verdict.candidate,
        }
        return self._registry.record_comparison(line, tags, write)

    def _side(self, ref: str) -> Side:
        if ref not in self._sides:
            self._sides[ref] = self._examined(ref)
        return self._sides[ref]

    def _examined(self, ref: str) -> Side:
        found = complaints(verify(self._registry, ref))
        try:
            folder = self._registry.download(ref)
        except (IntegrityError, ObjectMissing):
            if not found:
                raise
            raise IntegrityError(f"{ref} is not what its card says ({'; '.join(found)}); register it again") from None
        card = Card.load(folder / "card.json")
        registered = Evaluation.load(folder / "evaluation.json")
        lock = lock_state(self._layout, card.provenance.dvc_lock)
        status = VersionStatus(ref, card, registered, None, complaints=found, lock=lock)
        try:
            self._scorer = self._scorer or Scorer(self._layout, self._params, self._registry)
            measured = self._scorer.measure(ref)
        except (ConfigError, DataError, IntegrityError, ObjectMissing) as error:
            return Side(replace(status, why_not=str(error)), None)
        return Side(replace(status, scored=measured.evaluation), measured)
