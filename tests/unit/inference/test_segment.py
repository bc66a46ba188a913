"""Labelled instances: the record, and how proposals get their names."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.special import expit

from samif.classifier.confidence import NameConfidence
from samif.classifier.model import Classifier, FeatureSpace
from samif.classifier.operating_point import OperatingPoint, rates_of
from samif.config import EvaluateParams, ProposeParams
from samif.dataset.images import read_image
from samif.dataset.model import Dataset
from samif.inference.propose import Proposals
from samif.inference.segment import UNKNOWN, Instances, Segmenter, label
from samif.masks.rle import boxes
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from tests.support.handmade import classifier, proposals, rectangle, rle

SHAPE = (30, 40)
MASKS = [rectangle(SHAPE, 0, 0, 10, 10), rectangle(SHAPE, 0, 20, 10, 10), rectangle(SHAPE, 15, 0, 10, 10)]
KNOWN = classifier({"bolt": [9, 0, 0], "nut": [0, 9, 0]}, background=[0, 0, 9])


def instances(**changes: object) -> Instances:
    """Two known and one unknown."""
    given: dict[str, object] = {
        "height": 30,
        "width": 40,
        "masks": [rle(mask) for mask in MASKS],
        "boxes": boxes([rle(mask) for mask in MASKS]),
        "labels": ("bolt", "nut", UNKNOWN),
        "scores": np.array([0.9, 0.3, 0.2]),
    }
    return Instances(**(given | changes))  # type: ignore[arg-type]


def looking(*names: str, quality: list[float] | None = None, masks: list[np.ndarray] | None = None) -> Proposals:
    """Proposals that look like these classes; "nothing" like background."""
    rows = [("bolt", "nut", "nothing").index(name) for name in names]
    return proposals((masks or MASKS)[: len(names)], 9 * np.eye(3, dtype=np.float32)[rows], quality)


def named(found: Proposals, **params: object) -> Instances:
    return label(found, KNOWN, EvaluateParams.model_validate({"duplicates": "nms", **params}), *SHAPE)


# The record


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boxes": np.zeros((2, 4))}, r"expected boxes \(3, 4\), 3 labels and scores \(3,\) for 3 masks, got \(2, 4\)"),
        ({"boxes": np.zeros((3, 5))}, r"got \(3, 5\), 3 and \(3,\)"),
        ({"labels": ("bolt",)}, r"got \(3, 4\), 1 and \(3,\)"),
        ({"scores": np.zeros(4)}, r"got \(3, 4\), 3 and \(4,\)"),
        ({"scores": np.zeros((3, 1))}, r"and \(3, 1\)"),
        ({"height": 31}, "expected masks of 31 x 40 pixels"),
        ({"width": 41}, "expected masks of 30 x 41 pixels"),
        ({"scores": np.array([0.5, 1.001, 0.0])}, "expected scores in 0..1"),
        ({"scores": np.array([0.5, -0.001, 0.0])}, "expected scores in 0..1"),
        ({"scores": np.array([0.5, np.nan, 0.0])}, "expected scores in 0..1"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        instances(**changes)


def test_the_ends_of_the_score_range_are_allowed() -> None:
    assert len(instances(scores=np.array([1.0, 0.0, 0.5]))) == 3
    assert len(Instances(30, 40, [], np.zeros((0, 4)), (), np.zeros(0))) == 0


@pytest.mark.parametrize(("score", "left"), [(0.3, ("bolt", "nut", UNKNOWN)), (0.31, ("bolt", UNKNOWN))])
def test_above_keeps_the_score_itself_and_every_unknown(score: float, left: tuple[str, ...]) -> None:
    assert instances().above(score).labels == left


def test_known_leaves_unknown_out() -> None:
    known = instances().known
    assert known.labels == ("bolt", "nut") and known.scores.tolist() == [0.9, 0.3]
    assert known.masks == instances().masks[:2] and known.boxes.tolist() == instances().boxes[:2].tolist()
    assert len(known.take(np.zeros(0, dtype=np.int64)).known) == 0


# Names


def test_masks_are_named_by_their_looks_and_scored_by_their_quality() -> None:
    found = named(looking("nut", "bolt", quality=[0.5, 0.8]))
    assert found.labels == ("bolt", "nut")  # best first
    np.testing.assert_allclose(found.scores, [0.8, 0.5], atol=1e-6)
    assert found.masks == [rle(MASKS[1]), rle(MASKS[0])] and found.boxes[0].tolist() == [20.0, 0.0, 10.0, 10.0]


def test_nothing_proposed_is_nothing_found() -> None:
    assert len(named(proposals([]))) == 0


@pytest.mark.parametrize(("quality", "told"), [(0.51, True), (0.5, True), (0.49, False)])
def test_a_good_mask_of_no_class_is_unknown(quality: float, told: bool) -> None:
    found = named(looking("nothing", quality=[quality]))
    assert found.resolved.labels == ((UNKNOWN,) if told else ())
    if told:
        row = found.labels.index(UNKNOWN)
        assert found.scores[row] == pytest.approx(quality) and found.masks[row] == rle(MASKS[0])
    assert all(score < 0.01 for score in found.known.scores)


def test_a_mask_that_background_wins_has_one_name() -> None:
    """Background 0.505, bolt 0.495, quality 1."""
    even = classifier({"bolt": [1, 0]}, background=[1.05, 0.1])
    named = proposals(MASKS[:1], np.array([[1.2, 0.2]], np.float32))
    params = EvaluateParams()
    found = label(named, even, params, *SHAPE)
    assert sorted(found.labels) == ["bolt", UNKNOWN]
    assert found.resolved.above(params.operating_score).labels == (UNKNOWN,)


def point(score: float, class_scores: dict[str, float] | None = None) -> OperatingPoint:
    return OperatingPoint(
        limit=100.0, images=50, score=score, class_scores=class_scores or {}, rates=rates_of(1, 1, 0, 50)
    )


@pytest.mark.parametrize(("least", "shown"), [(0.2, "bolt"), (0.7, UNKNOWN)])
def test_the_operating_point_decides_what_is_named(least: float, shown: str) -> None:
    """Background 0.505, bolt 0.495, quality 1: without an operating point, background would win."""
    even = classifier({"bolt": [1, 0]}, background=[1.05, 0.1])
    one = proposals(MASKS[:1], np.array([[1.2, 0.2]], np.float32))
    decided = even.with_operating_point(point(score=0.1, class_scores={"bolt": least}))
    found = label(one, decided, EvaluateParams(), *SHAPE)
    assert found.known.scores == pytest.approx([0.495], abs=0.01)
    assert found.resolved.above(decided.operating_score(0.3)).labels == (shown,)


def test_an_unknown_object_scores_by_how_likely_it_is_no_class() -> None:
    """A known object below its class's score is not shown as unknown with the whole quality of its mask."""
    even = classifier({"bolt": [1, 0]}, background=[1.05, 0.1]).with_operating_point(point(score=0.7))
    found = label(proposals(MASKS[:1], np.array([[1.2, 0.2]], np.float32)), even, EvaluateParams(), *SHAPE)
    assert found.resolved.labels == (UNKNOWN,)
    assert found.resolved.scores == pytest.approx([0.505], abs=0.01)


def test_what_has_a_name_is_not_unknown() -> None:
    assert UNKNOWN not in named(looking("bolt", "nut")).labels


@pytest.mark.parametrize(("duplicates", "second"), [("nms", 0.6), ("soft", 0.0)])
def test_duplicates_are_removed_as_asked(duplicates: str, second: float) -> None:
    """A small part of a bolt, 4 of its 100 pixels: too little for suppression, enough for soft merging."""
    part = rectangle(SHAPE, 2, 2, 2, 2)
    found = named(looking("bolt", "bolt", quality=[0.9, 0.6], masks=[MASKS[0], part]), duplicates=duplicates)
    assert found.scores[0] == pytest.approx(0.9, abs=1e-5)
    assert found.scores[1:].sum() == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize(("iou", "left"), [(0.49, 1), (0.51, 2)])
def test_one_object_gets_one_name(iou: float, left: int) -> None:
    half = rectangle(SHAPE, 0, 0, 5, 10)
    found = named(looking("bolt", "nut", quality=[0.9, 0.6], masks=[MASKS[0], half]), duplicate_iou=iou)
    assert found.known.labels == ("bolt", "nut")[:left]


def test_no_more_than_asked_for() -> None:
    assert len(named(looking("bolt", "nut", "bolt"), max_detections=2)) == 2


# The whole


def test_an_image_is_segmented(encoder: ImageEncoder, decoder: InstanceDecoder, scenes: Dataset) -> None:
    """Weights are random, so that the names are: everything else holds."""
    rng = np.random.default_rng(0)
    space = FeatureSpace(
        ("token",), "cosine", np.zeros(64, np.float32), np.eye(64, dtype=np.float32),
        rng.normal(size=(1, 64)).astype(np.float32), 1.0, 0.0,
    )  # fmt: skip
    names = Classifier(space, ("a", "b"), rng.normal(size=(2, 64)).astype(np.float32), np.array([1, 1]))
    segmenter = Segmenter(encoder, decoder, names, ProposeParams(min_objectness=0.0), EvaluateParams())
    image = read_image(scenes.path_of(scenes.images[0]))[:100, :157]
    found = segmenter.segment(image)
    assert (found.height, found.width) == (100, 157) and len(found)
    assert set(found.labels) <= {"a", "b", UNKNOWN}
    again = segmenter.segment(image)
    assert again.labels == found.labels and np.array_equal(again.scores, found.scores)
    assert replace(segmenter, evaluate_params=EvaluateParams(max_detections=1)).segment(image).known.scores.size <= 1


# Name confidence

BY_IOU = NameConfidence(class_probability=0.0, iou=2.0, objectness=0.0, unmerged=0.0, apart=0.0, bias=1.0)
BY_PLACE = NameConfidence(class_probability=0.0, iou=0.0, objectness=0.0, unmerged=0.0, apart=9.0, bias=-8.0)


def test_the_confidence_of_the_classifier_makes_the_scores() -> None:
    found = looking("bolt", "nut", quality=[0.5, 0.8])
    made = label(found, KNOWN.with_confidence(BY_IOU), EvaluateParams(duplicates="nms"), *SHAPE)
    assert made.labels == ("nut", "bolt")
    assert made.scores == pytest.approx([expit(2 * np.log(0.8) + 1), expit(2 * np.log(0.5) + 1)], abs=1e-6)


@pytest.mark.parametrize("duplicates", ["nms", "soft", "diffusion"])
def test_a_part_of_a_better_mask_of_its_class_is_less_certain(duplicates: Literal["nms", "soft", "diffusion"]) -> None:
    whole, part, other = (rectangle(SHAPE, *place) for place in ((0, 0, 20, 20), (0, 0, 6, 6), (22, 22, 6, 6)))
    found = looking("bolt", "bolt", "bolt", quality=[0.9, 0.7, 0.7], masks=[whole, part, other])
    made = label(found, KNOWN.with_confidence(BY_PLACE), EvaluateParams(duplicates=duplicates), *SHAPE)
    score_of = {mask["counts"]: score for mask, score in zip(made.masks, made.scores, strict=True)}
    scores = [score_of[rle(mask)["counts"]] for mask in (whole, part, other)]
    assert scores == pytest.approx([expit(1.0), expit(-8.0), expit(1.0)])


def test_scores_stay_sorted_and_lie_in_the_unit_interval() -> None:
    found = looking("bolt", "nut", "bolt", quality=[0.0, 0.9, 0.4])
    made = label(found, KNOWN.with_confidence(BY_IOU), EvaluateParams(), *SHAPE).known
    assert (np.diff(made.scores) <= 0).all() and made.scores.min() >= 0.0 and made.scores.max() <= 1.0
