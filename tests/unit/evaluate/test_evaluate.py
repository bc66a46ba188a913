"""Evaluation of proposals made by hand, named by a classifier made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from samif.config import EvaluateParams
from samif.dataset.model import Category, Dataset, ImageRecord
from samif.evaluate.evaluate import evaluate
from samif.evaluate.model import Evaluation
from samif.inference.propose import Proposals
from tests.support.handmade import annotation, classifier, image, pixels, proposals, rectangle

SHAPE = (30, 30)
CLASSES = ("bolt", "gear", "hook")  # bolt and gear are base, hook is novel; "wing" is an unknown class
KNOWN = classifier({"bolt": [9, 0, 0, 0], "gear": [0, 9, 0, 0], "hook": [0, 0, 9, 0]}, background=[0, 0, 0, 9])
PLACES = [rectangle(SHAPE, top, left, 10, 10) for top in (0, 15) for left in (0, 15)]
Shown = tuple[np.ndarray, str, float]
"""A proposal: its mask, the class of its token, its quality."""


def token_of(name: str) -> np.ndarray:
    """Token that the classifier is as good as sure of."""
    return 9 * np.eye(4, dtype=np.float32)[(*CLASSES, "nothing").index(name)]


def proposed(*shown: Shown) -> Proposals:
    if not shown:
        return proposals([])
    masks, names, quality = zip(*shown, strict=True)
    return proposals(masks, np.stack([token_of(name) for name in names]), quality)


def run(images: Sequence[tuple[ImageRecord, tuple[Shown, ...]]], root: Path, **params: object) -> Evaluation:
    categories = tuple(Category(i + 1, name) for i, name in enumerate((*CLASSES, "wing")))
    dataset = Dataset(root, categories, tuple(shown for shown, _ in images))
    by_id = {p.id: proposed(*shown) for p, shown in images}
    given = EvaluateParams.model_validate({"duplicates": "nms", **params})
    return evaluate("s1", dataset, lambda p: by_id[p.id], KNOWN, ["bolt", "gear"], given).evaluation


def labelled(number: int, *names: str) -> ImageRecord:
    """An image with these objects, in the order of PLACES."""
    return image(number, SHAPE, *(annotation(10 * number + i, n, PLACES[i]) for i, n in enumerate(names)))


def test_everything_found_and_named(tmp_path: Path) -> None:
    found = run(
        [
            (labelled(1, "bolt", "gear"), ((PLACES[0], "bolt", 1.0), (PLACES[1], "gear", 1.0))),
            (labelled(2, "hook"), ((PLACES[0], "hook", 1.0),)),
        ],
        tmp_path,
    )
    assert (found.ap.base, found.ap.novel, found.ap.all) == pytest.approx((100.0, 100.0, 100.0))
    assert found.confusion.labels == [*CLASSES, "background"]
    assert found.confusion.matrix == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert (
        found.unknown.unlabelled_false_positives_per_image == 0.0
        and found.unknown.auroc is None
        and found.unknown.objects == 0
    )
    assert found.classes.base == ["bolt", "gear"] and found.classes.novel == ["hook"]
    assert {name: score.instances for name, score in found.per_class.items()} == dict.fromkeys(CLASSES, 1)
    assert found.images == 2 and found.name == "s1"


def test_confusion_has_misnamed_missed_and_invented(tmp_path: Path) -> None:
    found = run(
        [
            (
                labelled(1, "bolt", "bolt", "gear"),
                (
                    (PLACES[0], "gear", 1.0),  # misnamed
                    (PLACES[2], "gear", 1.0),
                    (PLACES[3], "hook", 1.0),  # nothing is there
                ),
            )
        ],
        tmp_path,
    )
    assert found.confusion.matrix == [[0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert found.per_class["bolt"].ap == 0.0 and found.ap.novel is None


def test_an_object_is_matched_once_by_the_best(tmp_path: Path) -> None:
    twice = ((PLACES[0], "bolt", 0.8), (PLACES[0], "gear", 0.9))
    found = run([(labelled(1, "bolt"), twice)], tmp_path, duplicate_iou=1.0)
    assert found.confusion.matrix == [[0, 1, 0, 0], [0] * 4, [0] * 4, [1, 0, 0, 0]]


@pytest.mark.parametrize(("quality", "shown"), [(0.5, 1), (0.49, 0)])
def test_only_what_reaches_the_operating_score_is_in_the_table(quality: float, shown: int, tmp_path: Path) -> None:
    found = run([(labelled(1, "bolt"), ((PLACES[0], "bolt", quality),))], tmp_path, operating_score=0.499)
    assert found.confusion.matrix[0] == [shown, 0, 0, 1 - shown]
    assert found.per_class["bolt"].ap == pytest.approx(100.0)  # AP ranks every score


@pytest.mark.parametrize(("covered", "matched"), [(49, False), (50, True)])
def test_a_match_is_half_the_object(covered: int, matched: bool, tmp_path: Path) -> None:
    part = PLACES[0] & pixels(SHAPE, 30 * (covered // 10) + covered % 10)
    assert part.sum() == covered
    found = run([(labelled(1, "bolt"), ((part, "bolt", 1.0),))], tmp_path)
    assert found.confusion.matrix[0] == ([1, 0, 0, 0] if matched else [0, 0, 0, 1])


# False positives on unlabelled objects


@pytest.mark.parametrize(("covered", "false_positives"), [(29, 1.0), (30, 0.0)])
def test_a_tag_off_every_known_object_is_false(covered: int, false_positives: float, tmp_path: Path) -> None:
    part = PLACES[0] & pixels(SHAPE, 30 * (covered // 10) + covered % 10)
    assert part.sum() == covered
    assert (
        run([(labelled(1, "bolt"), ((part, "bolt", 1.0),))], tmp_path).unknown.unlabelled_false_positives_per_image
        == false_positives
    )


def test_unlabelled_false_positives_are_counted_per_image(tmp_path: Path) -> None:
    found = run(
        [
            (
                labelled(1, "wing"),
                ((PLACES[0], "hook", 1.0), (PLACES[3], "bolt", 1.0)),
            ),  # on an unknown object; on nothing
            (labelled(2), ()),
            (labelled(3), ((PLACES[0], "hook", 0.2),)),  # below the operating score
            (labelled(4), ((PLACES[0], "nothing", 1.0),)),
        ],
        tmp_path,
    )
    assert found.unknown.unlabelled_false_positives_per_image == 2 / 4


def test_a_tag_in_a_crowd_is_neither_false_nor_confused(tmp_path: Path) -> None:
    crowd = image(1, SHAPE, annotation(1, "bolt", rectangle(SHAPE, 0, 0, 12, 12), crowd=True))
    found = run([(crowd, ((PLACES[0], "bolt", 1.0),))], tmp_path)
    assert found.unknown.unlabelled_false_positives_per_image == 0.0
    assert found.confusion.matrix == [[0] * 4] * 4


# Unknown objects


def test_auroc_is_whether_known_objects_score_above_unknown_ones(tmp_path: Path) -> None:
    images = [
        (labelled(1, "bolt", "gear"), ((PLACES[0], "bolt", 0.9), (PLACES[1], "gear", 0.6))),
        (labelled(2, "wing", "wing"), ((PLACES[0], "hook", 0.7), (PLACES[1], "hook", 0.2))),
        (labelled(3, "bolt", "wing"), ()),  # not found: does not count
    ]
    found = run(images, tmp_path)
    assert found.unknown.objects == 2
    assert found.unknown.auroc == pytest.approx(3 / 4)  # of four pairs, 0.6 against 0.7 is the wrong way round


def test_rejected_unknown_objects_are_separated_entirely(tmp_path: Path) -> None:
    images = [(labelled(1, "bolt", "wing"), ((PLACES[0], "bolt", 0.6), (PLACES[1], "nothing", 1.0)))]
    assert run(images, tmp_path).unknown.auroc == 1.0


# Base only


def test_base_only_leaves_out_images_with_anything_else(tmp_path: Path) -> None:
    images = [
        (labelled(1, "bolt"), ((PLACES[0], "bolt", 1.0),)),
        (labelled(2, "bolt", "hook"), ((PLACES[1], "hook", 1.0),)),  # the bolt is missed
        (labelled(3, "bolt", "wing"), ()),
        (labelled(4), ((PLACES[0], "bolt", 1.0),)),  # shows nothing
    ]
    found = run(images, tmp_path)
    assert found.base_only.images == 1
    assert found.base_only.ap == pytest.approx(100.0) and found.base_only.ap50 == pytest.approx(100.0)
    assert found.ap.base is not None and found.ap.base < 50.0


def test_no_image_of_base_parts_alone_gives_no_value(tmp_path: Path) -> None:
    found = run([(labelled(1, "hook"), ((PLACES[0], "hook", 1.0),))], tmp_path)
    assert found.base_only.images == 0 and found.base_only.ap is None and found.ap.base is None


# Detections


def test_detections_are_coco_results(tmp_path: Path) -> None:
    categories = (Category(7, "bolt"), Category(4, "gear"), Category(9, "hook"))
    dataset = Dataset(tmp_path, categories, (labelled(5, "bolt"),))
    shown = proposed((PLACES[1], "gear", 0.5))
    scored = evaluate("base", dataset, lambda _: shown, KNOWN, CLASSES, EvaluateParams(duplicates="nms"))
    [only] = scored.detections
    assert only["image_id"] == 5 and only["category_id"] == 4 and only["bbox"] == [15.0, 0.0, 10.0, 10.0]
    assert only["segmentation"] == shown.masks[0] and only["score"] == pytest.approx(0.5, abs=1e-5)
    assert scored.evaluation.dataset == dataset.digest
