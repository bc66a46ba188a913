"""Names and false names of a classifier on images, at every score at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from samif.classifier.base import CrossFit
from samif.classifier.confidence import NameConfidence, fit_confidence
from samif.classifier.model import Classifier
from samif.classifier.operating_point import NamingEvidence
from samif.config import EvaluateParams
from samif.dataset.model import Dataset, ImageRecord
from samif.evaluate.average_precision import Detection
from samif.evaluate.matching import match_all
from samif.inference.propose import Proposals
from samif.inference.segment import UNKNOWN, Instances, label, rank


def to_detections(instances: Instances, image_id: int, category_ids: dict[str, int]) -> list[Detection]:
    """COCO results of one image's instances of known classes, with `"rejected": True` where the classifier rejects the
    class: AP ranks those too, while a person sees them as unknown."""
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[name],
            "segmentation": mask,
            "bbox": [float(v) for v in box],
            "score": round(float(score), 6),
            **({"rejected": True} if rejected else {}),
        }
        for mask, box, name, score, rejected in zip(
            instances.masks, instances.boxes, instances.labels, instances.scores, instances.rejected, strict=True
        )
        if name != UNKNOWN
    ]


def naming_evidence(
    dataset: Dataset, detections: Iterable[Mapping[str, Any]], classes: Sequence[str]
) -> NamingEvidence:
    """Match the names of images, rejected ones too: matching takes the best scores first, so what a score cuts off
    changes no match above it.

    Args:
        detections: as of `match_all`, of any score.
        classes: that the classifier knows.
    """
    every = ({key: value for key, value in item.items() if key != "rejected"} for item in detections)
    matched = match_all(dataset, every, classes, 0.0)
    counted = [
        (detection.category, detection.score, right)
        for image in matched
        for detection, right, ignored in zip(image.detections, image.hits, image.ignored, strict=True)
        if not ignored
    ]
    objects = dict.fromkeys(classes, 0)
    for image in matched:
        for annotation in image.truth:
            objects[annotation.category] += 1
    return NamingEvidence(
        len(matched),
        objects,
        [name for name, _, _ in counted],
        np.array([score for _, score, _ in counted], dtype=np.float64),
        np.array([right for _, _, right in counted], dtype=bool),
    )


def cross_fitted_confidence(
    dataset: Dataset,
    proposals_of: Callable[[ImageRecord], Proposals],
    folds: Sequence[CrossFit],
    params: EvaluateParams,
) -> NameConfidence | None:
    """Fit how sure a name is on the training images, each named by the classifier that did not learn from it.

    Args:
        proposals_of: an image -> its proposals, with the features that the classifier takes.
        folds: classifiers without a name confidence.

    Returns:
        None where there are too few names.
    """
    classes = folds[0].classifier.classes
    ids = dataset.category_ids(classes)
    quantities, right = [np.zeros((0, 5))], [np.zeros(0, dtype=bool)]
    for image, classifier in _classifier_of(dataset, folds):
        proposals = proposals_of(image)
        if not len(proposals):
            continue
        ranked = rank(proposals, classifier, params)
        detections = [
            {
                "image_id": image.id,
                "category_id": ids[classes[label]],
                "segmentation": proposals.masks[row],
                "score": score,
            }
            for row, label, score in zip(ranked.rows, ranked.classes, ranked.scores, strict=True)
        ]
        matched = match_all(replace(dataset, images=(image,)), detections, classes, 0.0)[0]
        counted = ~np.array(matched.ignored, dtype=bool)
        quantities.append(ranked.quantities[counted])
        right.append(np.array(matched.hits, dtype=bool)[counted])
    return fit_confidence(np.concatenate(quantities), np.concatenate(right))


def cross_fitted_evidence(
    dataset: Dataset,
    proposals_of: Callable[[ImageRecord], Proposals],
    folds: Sequence[CrossFit],
    params: EvaluateParams,
) -> NamingEvidence:
    """Name the training images, each with the classifier that did not learn from it.

    Args:
        proposals_of: an image -> its proposals, with the features that the classifier takes.
    """
    classes = folds[0].classifier.classes
    ids = dataset.category_ids(classes)
    detections = []
    for image, classifier in _classifier_of(dataset, folds):
        named = label(proposals_of(image), classifier, params, image.height, image.width)
        detections += to_detections(named, image.id, ids)
    return naming_evidence(dataset, detections, classes)


def _classifier_of(dataset: Dataset, folds: Sequence[CrossFit]) -> Iterator[tuple[ImageRecord, Classifier]]:
    """Each image with the classifier that did not learn from it; one that showed nothing to learn from is in no
    fold."""
    of = {image: fold.classifier for fold in folds for image in fold.images}
    for image in dataset.images:
        yield image, of.get(image.id, folds[0].classifier)
