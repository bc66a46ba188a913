"""One matcher for hits, misses, false positives and confusions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samif.dataset.model import Category, Dataset
from samif.evaluate.matching import Matched, match_all
from samif.masks.rle import encode
from tests.support.handmade import annotation, image, rectangle

SHAPE = (30, 30)
CLASSES = ("bolt", "gear")  # "wing" is known to no classifier
OBJECT = rectangle(SHAPE, 0, 0, 10, 10)
ELSEWHERE = rectangle(SHAPE, 15, 15, 10, 10)


def detection(name: str, mask: np.ndarray, score: float = 0.9, **more: object) -> dict[str, Any]:
    [rle] = encode(mask[None])
    number = (*CLASSES, "wing").index(name) + 1
    return {"image_id": 1, "category_id": number, "segmentation": rle, "score": score, **more}


def matched(*detections: dict[str, Any], crowd: bool = False, label: str = "bolt") -> Matched:
    categories = tuple(Category(i + 1, name) for i, name in enumerate((*CLASSES, "wing")))
    dataset = Dataset(Path("/nowhere"), categories, (image(1, SHAPE, annotation(1, label, OBJECT, crowd=crowd)),))
    [found] = match_all(dataset, detections, CLASSES, 0.3)
    return found


@pytest.mark.parametrize(
    ("name", "mask", "label", "false_positive", "unlabelled"),
    [
        ("bolt", OBJECT, "bolt", False, 0),
        ("gear", OBJECT, "bolt", True, 0),  # a confusion: an object of a known class is there
        ("bolt", ELSEWHERE, "bolt", True, 1),  # on the background
        ("bolt", OBJECT, "wing", True, 1),  # on an object of a class that the classifier does not know
    ],
)
def test_false_positives_and_those_on_unlabelled_objects(
    name: str, mask: np.ndarray, label: str, false_positive: bool, unlabelled: int
) -> None:
    found = matched(detection(name, mask), label=label)
    assert found.false_positives == [false_positive] and found.unlabelled_false_positives == unlabelled


def test_every_false_positive_on_an_unlabelled_object_is_a_false_positive() -> None:
    found = matched(detection("bolt", OBJECT), detection("gear", OBJECT), detection("gear", ELSEWHERE))
    assert all(false for false, on in zip(found.false_positives, found.unlabelled, strict=True) if on)
    assert (sum(found.false_positives), found.unlabelled_false_positives) == (2, 1)


def test_in_a_crowd_of_another_class_it_is_a_false_positive_but_not_on_something_unlabelled() -> None:
    own, other = (matched(detection(name, OBJECT), crowd=True) for name in ("bolt", "gear"))
    assert (own.false_positives, own.unlabelled_false_positives) == ([False], 0)
    assert (other.false_positives, other.unlabelled_false_positives) == ([True], 0)


def test_the_object_that_a_confusion_lies_on_is_known() -> None:
    found = matched(detection("gear", OBJECT))
    assert found.matched_gt == (None,) and found.overlapped_gt == (0,) and found.missed == [True]


def test_what_the_classifier_rejects_is_no_detection_for_people() -> None:
    found = matched(detection("bolt", OBJECT), detection("gear", ELSEWHERE, rejected=True))
    assert [d.category for d in found.detections] == ["bolt"] and found.unlabelled_false_positives == 0
