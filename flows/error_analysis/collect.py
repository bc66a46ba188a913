"""The errors of one classifier on the validation images of a workspace."""

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
from samif.versions.compare import ScoredVersion

VALIDATION = "validation images"


@dataclass(frozen=True)
class Errors:
    """The errors of a classifier on labelled images.

    Attributes:
        name: of the classifier: `base`, a session, or a version.
        known: the classes that it knows.
        images: what the images are, in the plural.
        page: file name of their page.
    """

    name: str
    known: tuple[str, ...]
    dataset: Dataset
    cases: tuple[ErrorCase, ...]
    images: str
    page: str

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
    return _on_validation(name, known, dataset, find_errors(matched, detections, known))


def of_version(ref: str, dataset: Dataset, scored: ScoredVersion) -> Errors:
    """The errors of the version `ref`, scored on the validation images `dataset`."""
    known = tuple(scored.matches.classes)
    return _on_validation(ref, known, dataset, find_errors(scored.matched, scored.detections, known))


def _on_validation(name: str, known: tuple[str, ...], dataset: Dataset, cases: Sequence[ErrorCase]) -> Errors:
    """Errors on validation images."""
    page = f"errors-{name.replace('/', '-')}.html"
    return Errors(name, known, dataset, tuple(cases), VALIDATION, page)


def find_case(errors: Errors, id_: str) -> ErrorCase:
    """The error with this id.

    Raises:
        ConfigError: there is none.
    """
    for case in errors.cases:
        if case.id == id_:
            return case
    raise ConfigError(f"there is no error {id_} of {errors.name}; 'samif errors list' with the same options lists them")
