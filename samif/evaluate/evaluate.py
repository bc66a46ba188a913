"""Score one classifier on the validation images: AP by group, confusion, unknown objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from samif.classifier.model import Classifier
from samif.config import EvaluateParams
from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.evaluate.average_precision import Detection, average_precision, group_mean
from samif.evaluate.model import (
    BACKGROUND,
    BaseOnly,
    ClassGroups,
    ClassScore,
    Confusion,
    Evaluation,
    GroupScores,
    Unknown,
)  # fmt: skip
from samif.inference.propose import Proposals
from samif.inference.segment import Instances, label
from samif.masks.rle import overlaps

MATCH_IOU = 0.5
FALSE_IOU = 0.3


@dataclass(frozen=True)
class Scored:
    """An evaluation, the detections behind it, and the false tags of each image in the data set's order."""

    evaluation: Evaluation
    detections: list[Detection]
    false_tags: list[int]


def evaluate(
    name: str,
    dataset: Dataset,
    proposals_of: Callable[[ImageRecord], Proposals],
    classifier: Classifier,
    base_classes: Sequence[str],
    params: EvaluateParams,
    advance: Callable[[int], None] = lambda _: None,
) -> Scored:
    """Label the proposals of every image and score them.

    Classes of the classifier that are not `base_classes` form the novel group; instances of classes that it does not
    know are the unknown objects. AP in points 0-100.
    """
    started = time.monotonic()
    base = [c for c in classifier.classes if c in set(base_classes)]
    novel = [c for c in classifier.classes if c not in set(base_classes)]
    tally = _Tally(classifier.classes, params.operating_score)
    ids = dataset.category_ids(classifier.classes)
    detections: list[Detection] = []
    for image in dataset.images:
        found = label(proposals_of(image), classifier, params, image.height, image.width)
        tally.add(image, found.known, found.resolved.known)
        detections += to_detections(found.known, image.id, ids)
        advance(1)
    scores = average_precision(dataset, detections, classifier.classes)
    ap = {c: scores.get(c, (None, None, 0))[0] for c in classifier.classes}
    ap50 = {c: scores.get(c, (None, None, 0))[1] for c in classifier.classes}
    instances_of = {c: scores.get(c, (None, None, 0))[2] for c in classifier.classes}
    evaluation = Evaluation(
        name=name,
        classes=ClassGroups(base=base, novel=novel),
        images=len(dataset.images),
        dataset=dataset.digest,
        ap=_groups(ap, base, novel),
        ap50=_groups(ap50, base, novel),
        per_class={
            c: ClassScore(ap=ap[c], ap50=ap50[c], instances=instances_of[c], group="base" if c in base else "novel")
            for c in classifier.classes
        },
        base_only=_base_only(dataset, detections, base),
        unknown=tally.unknown(),
        confusion=tally.confusion(),
        operating_score=params.operating_score,
        seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip
    return Scored(evaluation, detections, tally.false_tags)


def to_detections(instances: Instances, image_id: int, category_ids: dict[str, int]) -> list[Detection]:
    """COCO results of one image's known instances."""
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[name],
            "segmentation": mask,
            "bbox": [float(v) for v in box],
            "score": round(float(score), 6),
        }
        for mask, box, name, score in zip(
            instances.masks, instances.boxes, instances.labels, instances.scores, strict=True
        )
    ]


def _groups(values: dict[str, float | None], base: list[str], novel: list[str]) -> GroupScores:
    return GroupScores(
        base=group_mean(values, base), novel=group_mean(values, novel), all=group_mean(values, base + novel)
    )


def _base_only(dataset: Dataset, detections: list[Detection], base: list[str]) -> BaseOnly:
    known = set(base)
    images = [p.id for p in dataset.images if all(a.category in known for a in p.annotations) and p.annotations]
    chosen = set(images)
    scores = average_precision(dataset.only(images), [d for d in detections if d["image_id"] in chosen], base)
    return BaseOnly(
        images=len(images),
        ap=group_mean({c: s[0] for c, s in scores.items()}, base),
        ap50=group_mean({c: s[1] for c, s in scores.items()}, base),
    )


class _Tally:
    """Counts over images at the operating score, and best scores on known and unknown objects."""

    def __init__(self, classes: Sequence[str], operating_score: float) -> None:
        self._column = {name: i for i, name in enumerate(classes)}
        self._labels = [*classes, BACKGROUND]
        self._matrix = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
        self._score = operating_score
        self._on_known: list[float] = []
        self._on_unknown: list[float] = []
        self.false_tags: list[int] = []

    def add(self, image: ImageRecord, instances: Instances, named: Instances) -> None:
        """Count one image: everything that ranks, and what is named for a person to see."""
        objects = [a for a in image.annotations if not a.crowd]
        known = [a for a in objects if a.category in self._column]
        strangers = [a for a in objects if a.category not in self._column]
        crowds = [a.rle for a in image.annotations if a.crowd]
        self._best_scores(instances, known, self._on_known)
        self._best_scores(instances, strangers, self._on_unknown)
        shown = named.above(self._score)
        overlap = overlaps(shown.masks, [a.rle for a in known])
        in_crowd = overlaps(shown.masks, crowds, within_a=True).max(axis=1, initial=0.0) >= MATCH_IOU
        self.false_tags.append(int(((overlap.max(axis=1, initial=0.0) < FALSE_IOU) & ~in_crowd).sum()))
        self._match(shown, known, overlap, in_crowd)

    def unknown(self) -> Unknown:
        auroc = None
        if self._on_known and self._on_unknown:
            truth = [1] * len(self._on_known) + [0] * len(self._on_unknown)
            auroc = float(roc_auc_score(truth, self._on_known + self._on_unknown))
        false_tags = sum(self.false_tags) / len(self.false_tags) if self.false_tags else None
        return Unknown(auroc=auroc, false_tags_per_image=false_tags, objects=len(self._on_unknown))

    def confusion(self) -> Confusion:
        return Confusion(labels=self._labels, matrix=self._matrix.tolist())

    def _best_scores(self, instances: Instances, objects: list[Annotation], into: list[float]) -> None:
        """The best score that a mask of each object got (IoU >= 0.5); objects that were not found say nothing."""
        overlap = overlaps(instances.masks, [a.rle for a in objects])
        for column in overlap.T:
            hit = column >= MATCH_IOU
            if hit.any():
                into.append(float(instances.scores[hit].max()))

    def _match(
        self, shown: Instances, known: list[Annotation], overlap: NDArray[np.float64], in_crowd: NDArray[np.bool_]
    ) -> None:
        free = overlap.copy()
        found: set[int] = set()
        for row in np.argsort(-shown.scores, kind="stable"):
            column = int(free[row].argmax()) if len(known) else -1
            predicted = self._column[shown.labels[row]]
            if column >= 0 and free[row, column] >= MATCH_IOU:
                self._matrix[self._column[known[column].category], predicted] += 1
                free[:, column] = -1.0
                found.add(column)
            elif not in_crowd[row]:
                self._matrix[-1, predicted] += 1
        for column, annotation in enumerate(known):
            if column not in found:
                self._matrix[self._column[annotation.category], -1] += 1
