"""The errors of the evaluation of one classifier of a workspace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flows.loaders.inputs import dataset_of
from flows.report.collect import read_json
from flows.workspace.layout import Layout
from samif.config import BASE, Params
from samif.dataset.model import Dataset
from samif.errors import ConfigError, IntegrityError
from samif.evaluate.errors import CAUSES, ErrorCase, find_errors
from samif.evaluate.matching import match_all
from samif.evaluate.model import Evaluation


@dataclass(frozen=True)
class Errors:
    """The errors of the classifier `name` on validation images, and the classes that it knows."""

    name: str
    known: tuple[str, ...]
    dataset: Dataset
    cases: tuple[ErrorCase, ...]

    def rows(self) -> list[tuple[str, str, int]]:
        """Cause, class and number of errors; causes in their order, in each the most frequent class first."""
        counts = Counter((case.cause, case.category) for case in self.cases)
        return [
            (cause, category, number)
            for (cause, category), number in sorted(
                counts.items(), key=lambda item: (CAUSES.index(item[0][0]), -item[1], item[0][1])
            )
        ]


def collect(layout: Layout, params: Params, name: str | None) -> Errors:
    """The errors of a classifier, `base` or a session; by default of the last session.

    Raises:
        ConfigError: there is no such session.
        ObjectMissing: it is not evaluated yet.
        IntegrityError: the evaluation is damaged or of other images.
    """
    names: Sequence[str] = [BASE, *params.sessions]
    name = name or names[-1]
    if name not in names:
        raise ConfigError(f"there is no session '{name}' in {layout.params}; it has {', '.join(names)}")
    evaluation = Evaluation.load(layout.evaluation(name) / "evaluation.json")
    dataset = dataset_of(layout, params, "val")
    if evaluation.dataset != dataset.digest:
        raise IntegrityError(f"the evaluation of '{name}' is of other validation images; run 'samif run' again")
    detections = read_json(layout.evaluation(name) / "detections.json")
    known = (*evaluation.classes.base, *evaluation.classes.novel)
    matched = match_all(dataset, detections, known, evaluation.operating_score)
    return Errors(name, known, dataset, tuple(find_errors(matched, detections, known)))
