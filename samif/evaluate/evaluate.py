"""Score one classifier on the validation images: AP by group, confusion, unknown objects."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import roc_auc_score

from samif.classifier.model import Classifier
from samif.classifier.operating_point import naming_curve, rates_of
from samif.config import EvaluateParams
from samif.dataset.model import Dataset, ImageRecord
from samif.evaluate.average_precision import Detection, average_precision, group_mean
from samif.evaluate.matching import MATCH_IOU, Matched, match_all
from samif.evaluate.model import (
    BACKGROUND,
    BaseOnly,
    ClassGroups,
    ClassNaming,
    ClassScore,
    Confusion,
    Evaluation,
    GroupScores,
    Naming,
    Unknown,
)  # fmt: skip
from samif.evaluate.naming import naming_evidence, to_detections
from samif.inference.propose import Proposals
from samif.inference.segment import Instances, label
from samif.masks.rle import overlaps


@dataclass(frozen=True)
class Scored:
    """An evaluation, the detections behind it (COCO results), and per image, in the data set's order, the number of
    false positives on unlabelled objects."""

    evaluation: Evaluation
    detections: list[Detection]
    matched: list[Matched]

    @property
    def unlabelled_false_positives(self) -> list[int]:
        """Per image, false positives on unlabelled objects."""
        return [image.unlabelled_false_positives for image in self.matched]


@dataclass
class _BestScores:
    """The best score of a detection on each object that was found (IoU >= 0.5), for objects of known and of unknown
    classes: what rejection of unknown objects is judged by."""

    known: list[float] = field(default_factory=list)
    unknown: list[float] = field(default_factory=list)

    def add(self, image: ImageRecord, instances: Instances, classes: frozenset[str]) -> None:
        """Add the objects of one image."""
        objects = [a for a in image.annotations if not a.crowd]
        overlap = overlaps(instances.masks, [a.rle for a in objects])
        for annotation, column in zip(objects, overlap.T, strict=True):
            hit = column >= MATCH_IOU
            if hit.any():
                scores = self.known if annotation.category in classes else self.unknown
                scores.append(float(instances.scores[hit].max()))


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

    Classes of the classifier that are not `base_classes` form the novel group; objects of classes that it does not
    know are the unknown objects. AP in points (0-100).

    Args:
        name: `base` or the name of a session.
        proposals_of: an image -> its proposals, with the features that the classifier takes.
        advance: called with 1 for each image that is done.
    """
    started = time.monotonic()
    base = [c for c in classifier.classes if c in set(base_classes)]
    novel = [c for c in classifier.classes if c not in set(base_classes)]
    best = _BestScores()
    ids = dataset.category_ids(classifier.classes)
    detections: list[Detection] = []
    for image in dataset.images:
        found = label(proposals_of(image), classifier, params, image.height, image.width)
        best.add(image, found.known, frozenset(classifier.classes))
        detections += to_detections(found, image.id, ids)
        advance(1)
    operating_score = classifier.operating_score(params.operating_score)
    matched = match_all(dataset, detections, classifier.classes, operating_score)
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
        unknown=_unknown(matched, best),
        confusion=_confusion(matched, classifier.classes),
        naming=_naming(dataset, detections, matched, classifier),
        operating_score=min(1.0, operating_score),
        seconds=round(time.monotonic() - started, 3),
    )  # fmt: skip
    return Scored(evaluation, detections, matched)


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


def _confusion(images: Sequence[Matched], classes: Sequence[str]) -> Confusion:
    """Counts over images: an object and the detection that overlaps it most, whatever their classes."""
    column = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    for image in images:
        for detection, gt, in_crowd in zip(image.detections, image.overlapped_gt, image.in_crowd, strict=True):
            predicted = column[detection.category]
            if gt is not None:
                matrix[column[image.truth[gt].category], predicted] += 1
            elif not in_crowd:
                matrix[-1, predicted] += 1
        for index, annotation in enumerate(image.truth):
            if index not in image.overlapped_gt:
                matrix[column[annotation.category], -1] += 1
    return Confusion(labels=[*classes, BACKGROUND], matrix=matrix.tolist())


def _unknown(images: Sequence[Matched], best: _BestScores) -> Unknown:
    auroc = None
    if best.known and best.unknown:
        truth = [1] * len(best.known) + [0] * len(best.unknown)
        auroc = float(roc_auc_score(truth, best.known + best.unknown))
    false_positives = [image.unlabelled_false_positives for image in images]
    return Unknown(
        auroc=auroc,
        unlabelled_false_positives_per_image=sum(false_positives) / len(false_positives) if false_positives else None,
        objects=len(best.unknown),
    )


def _naming(
    dataset: Dataset, detections: list[Detection], images: Sequence[Matched], classifier: Classifier
) -> Naming | None:
    if not images:
        return None
    right, false = (
        Counter(name for image in images for name in image.names(kind)) for kind in ("hits", "false_positives")
    )
    evidence = naming_evidence(dataset, detections, classifier.classes)
    point = classifier.space.operating_point
    return Naming(
        limit=None if point is None else point.limit,
        rates=rates_of(sum(right.values()), sum(evidence.objects.values()), sum(false.values()), len(images)),
        classes={
            name: ClassNaming(
                score=None if point is None else point.score_of(name),
                rates=rates_of(right[name], evidence.objects[name], false[name], len(images)),
            )
            for name in classifier.classes
        },
        curve=naming_curve(evidence),
    )
