"""One chain of sessions for one number of shots and one seed, learnt and scored as the stages do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from samif.classifier.base import train_base
from samif.classifier.incremental import InstanceKey, learn_session
from samif.classifier.model import Classifier
from samif.config import BASE, EvaluateParams, SessionParams, Strict, TrainBaseParams, digest
from samif.dataset.model import Dataset, ImageRecord
from samif.dataset.sessions import draw_shots
from samif.evaluate.evaluate import evaluate
from samif.evaluate.model import BACKGROUND, Evaluation, GroupScores, Unknown
from samif.inference.propose import Proposals
from samif.protocol.pool import Pool


@dataclass(frozen=True)
class Variant:
    """What may differ between two runs on the same features."""

    train_base: TrainBaseParams
    evaluate: EvaluateParams

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest(self.train_base, self.evaluate)


@dataclass(frozen=True)
class Line:
    """What is learnt from and what is scored on; `proposals_of` gives the same object for an image each time, so that
    overlaps are counted once."""

    train: Dataset
    val: Dataset
    proposals_of: Callable[[ImageRecord], Proposals]
    base_classes: Sequence[str]
    sessions: Mapping[str, SessionParams]


class Score(Strict):
    """One classifier of a chain. AP in points; `as_base` and `as_novel`: the share (0-1) of found novel objects that
    are named as a base class, and of found base objects as a novel one; seconds to learn a class, None for the base."""

    shots: int
    seed: int
    session: str
    classes: int
    ap: GroupScores
    ap50: GroupScores
    base_only: float | None
    unknown: Unknown
    as_base: float | None
    as_novel: float | None
    seconds_per_class: float | None


def instance_keys(line: Line, shots: Sequence[int], seeds: Sequence[int]) -> list[InstanceKey]:
    """Every instance that these draws take, once; fewer shots are a prefix of more."""
    found: dict[InstanceKey, None] = {}
    for seed in seeds:
        for session in line.sessions.values():
            for keys in draw_shots(line.train, session.classes, max(shots), seed).values():
                found |= dict.fromkeys(keys)
    return list(found)


def base_of(pool: Pool, variant: Variant) -> Classifier:
    """The base classifier of a variant."""
    return train_base(pool.base.columns(pool.columns(variant.train_base.features)), variant.train_base)


def chain(
    pool: Pool, line: Line, variant: Variant, base: Classifier, shots: int, seed: int
) -> Iterator[tuple[str, Classifier, float]]:
    """Each session's classifier after the one before, and the seconds that each of its classes took to learn."""
    columns = pool.columns(variant.train_base.features)
    classifier = base
    for name, session in line.sessions.items():
        started = time.perf_counter()
        drawn = draw_shots(line.train, session.classes, shots, seed)
        shot_features = {key: pool.shot_features[key][:, columns] for keys in drawn.values() for key in keys}
        classifier = learn_session(classifier, drawn, shot_features)
        yield name, classifier, (time.perf_counter() - started) / len(session.classes)


def score(
    line: Line, variant: Variant, classifier: Classifier, name: str, shots: int, seed: int, seconds: float | None
) -> Score:
    """What a classifier scores on the validation images."""
    found = evaluate(name, line.val, line.proposals_of, classifier, line.base_classes, variant.evaluate).evaluation
    as_base, as_novel = _mixed_up(found)
    return Score(
        shots=shots if name != BASE else 0,
        seed=seed,
        session=name,
        classes=len(classifier.classes),
        ap=found.ap,
        ap50=found.ap50,
        base_only=found.base_only.ap,
        unknown=found.unknown,
        as_base=as_base,
        as_novel=as_novel,
        seconds_per_class=seconds,
    )


def _mixed_up(evaluation: Evaluation) -> tuple[float | None, float | None]:
    labels = evaluation.confusion.labels
    base = [i for i, name in enumerate(labels) if name in set(evaluation.classes.base)]
    novel = [i for i, name in enumerate(labels) if name in set(evaluation.classes.novel)]
    named = [i for i, name in enumerate(labels) if name != BACKGROUND]

    def share(rows: list[int], columns: list[int]) -> float | None:
        total = sum(evaluation.confusion.matrix[r][c] for r in rows for c in named)
        wrong = sum(evaluation.confusion.matrix[r][c] for r in rows for c in columns)
        return wrong / total if total else None

    return share(novel, base), share(base, novel)
