"""Evidence of names: at every score, rejected names too, each image by the classifier that did not learn from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samif.classifier.base import CrossFit
from samif.classifier.operating_point import naming_curve
from samif.config import EvaluateParams
from samif.dataset.model import Category, Dataset
from samif.evaluate.matching import match_all
from samif.evaluate.naming import cross_fitted_confidence, cross_fitted_evidence, naming_evidence
from tests.support.handmade import annotation, classifier, image, proposals, rectangle

SHAPE = (30, 30)
PLACES = [rectangle(SHAPE, top, left, 10, 10) for top in (0, 15) for left in (0, 15)]
NAMES = ("bolt", "gear")


def dataset(root: Path, *names: tuple[str, ...]) -> Dataset:
    images = [
        image(n, SHAPE, *(annotation(10 * n + i, name, PLACES[i]) for i, name in enumerate(shown)))
        for n, shown in enumerate(names, start=1)
    ]
    return Dataset(root, tuple(Category(i + 1, name) for i, name in enumerate((*NAMES, "wing"))), tuple(images))


def detection(image_id: int, name: str, place: int, score: float, **more: bool) -> dict[str, object]:
    mask = annotation(1, name, PLACES[place]).rle
    return {"image_id": image_id, "category_id": NAMES.index(name) + 1, "segmentation": mask, "score": score, **more}


def test_names_are_right_where_they_match_and_rejected_ones_count(tmp_path: Path) -> None:
    found = naming_evidence(
        dataset(tmp_path, ("bolt", "wing"), ("gear",)),
        [
            detection(1, "bolt", 0, 0.9),
            detection(1, "bolt", 1, 0.8, rejected=True),  # on an unknown object
            detection(2, "bolt", 0, 0.7),  # a wrong name
            detection(2, "gear", 0, 0.2, rejected=True),
        ],
        NAMES,
    )
    assert (found.images, found.objects) == (2, {"bolt": 1, "gear": 1})
    assert list(zip(found.classes, found.scores.tolist(), found.right.tolist(), strict=True)) == [
        ("bolt", 0.9, True), ("bolt", 0.8, False), ("bolt", 0.7, False), ("gear", 0.2, True),
    ]  # fmt: skip


def test_the_curve_is_what_matching_at_each_score_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = dataset(tmp_path, *(("bolt", "gear", "bolt", "wing") for _ in range(8)))
    detections = [
        detection(n, str(rng.choice(NAMES)), place, float(rng.random()))
        for n in range(1, 9) for place in range(4) for _ in range(2)
    ]  # fmt: skip
    for rates in naming_curve(naming_evidence(data, detections, NAMES)):
        matched = match_all(data, detections, NAMES, rates.score or 0.0)
        assert rates.named is not None
        assert rates.named.value == pytest.approx(sum(sum(image.hits) for image in matched) / 24)
        assert rates.false_names.value == pytest.approx(1000 * sum(sum(i.false_positives) for i in matched) / 8)


def test_each_image_is_named_by_the_classifier_that_did_not_learn_from_it(tmp_path: Path) -> None:
    """The first calls everything bolt, the second gear; the third image is in no fold."""
    data = dataset(tmp_path, ("bolt",), ("bolt",), ("bolt",))
    bolt, gear = (classifier({"bolt": one, "gear": two}, [0, 9]) for one, two in (([9, 0], [-9, 0]), ([-9, 0], [9, 0])))
    folds = [CrossFit(frozenset({1}), bolt), CrossFit(frozenset({2}), gear)]
    shown = proposals(PLACES[:1], np.array([[9, 0]], np.float32))
    found = cross_fitted_evidence(data, lambda _: shown, folds, EvaluateParams())
    assert found.classes == ["bolt", "gear", "bolt"]
    assert found.right.tolist() == [True, False, True]


def test_confidence_is_fitted_on_names_of_images_that_were_not_learnt_from(tmp_path: Path) -> None:
    """Masks of a low predicted IoU lie beside the objects; one classifier names everything wrongly."""
    data = dataset(tmp_path, *(("bolt",) for _ in range(40)))
    right, wrong = (
        classifier({"bolt": one, "gear": two}, [0, 9]) for one, two in (([9, 0], [-9, 0]), ([-9, 0], [9, 0]))
    )
    shown = proposals(PLACES[:2], np.array([[9, 0], [9, 0]], np.float32), [0.9, 0.4])
    evens, odds = frozenset(range(2, 41, 2)), frozenset(range(1, 41, 2))
    folds = [CrossFit(evens, right), CrossFit(odds, right)]
    found = cross_fitted_confidence(data, lambda _: shown, folds, EvaluateParams())
    assert found is not None and found.iou > 1.0
    named = [replace(fold, classifier=fold.classifier.with_confidence(found)) for fold in folds]
    evidence = cross_fitted_evidence(data, lambda _: shown, named, EvaluateParams())
    assert evidence.scores[evidence.right].min() > 0.9 and evidence.scores[~evidence.right].max() < 0.1
    swapped = [CrossFit(evens, wrong), CrossFit(odds, wrong)]
    assert cross_fitted_confidence(data, lambda _: shown, swapped, EvaluateParams()) is None  # no right name
