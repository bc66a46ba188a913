"""Planted errors are found, right labels are not accused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from samif.advice.label_errors import MIN_IMAGES, bad_masks, wrong_names
from samif.advice.look_alikes import look_alikes, rightly_named, view_shares
from samif.advice.naming import LabelledObjects, folds_of, out_of_fold
from tests.support.handmade import annotation, proposals, rectangle

NAMES = ("bolt", "gear", "hook", "nut")
SHAPE = (80, 120)


def objects(seed: int, per_class: int = 30, apart: float = 4.0, width: int = 24) -> LabelledObjects:
    """Gaussian classes, two objects an image."""
    rng = np.random.default_rng(seed)
    means = apart * rng.normal(size=(len(NAMES), width)) / np.sqrt(2)
    category = np.tile(np.arange(len(NAMES)), per_class)
    features = means[category] + rng.normal(size=(len(category), width))
    group = np.arange(len(category)) // 2
    return LabelledObjects(features.astype(np.float32), NAMES, category, group)


@pytest.mark.parametrize("seed", range(3))
def test_planted_swapped_names_are_found(seed: int) -> None:
    right = objects(seed)
    rows = np.random.default_rng(seed).choice(len(right.category), 6, replace=False)
    category = right.category.copy()
    category[rows] = (category[rows] + 1 + rows % 3) % len(NAMES)
    found = wrong_names(swapped := right.renamed(category), out_of_fold(swapped))
    assert {name.row for name in found} == set(rows.tolist())
    assert all(name.suggested == NAMES[right.category[name.row]] for name in found)
    assert [name.score for name in found] == sorted((name.score for name in found), reverse=True)


def test_errors_of_one_kind_do_not_vouch_for_each_other() -> None:
    right = objects(0)
    rows = np.flatnonzero(right.category == 1)[:6]
    category = right.category.copy()
    category[rows] = 3
    swapped = right.renamed(category)
    assert {name.row for name in wrong_names(swapped, out_of_fold(swapped))} == set(rows.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_right_names_are_not_accused(seed: int) -> None:
    right = objects(seed)
    assert wrong_names(right, out_of_fold(right)) == []
    assert min(rightly_named(right, out_of_fold(right)).values()) > 0.95


@pytest.mark.parametrize("seed", range(2))
def test_features_without_information_accuse_nobody(seed: int) -> None:
    noise = objects(seed, apart=0.0)
    assert wrong_names(noise, out_of_fold(noise)) == []


def test_a_class_of_few_images_is_not_accused() -> None:
    """Its objects have no neighbours of their name."""
    right = objects(0)
    rows = np.flatnonzero(right.category == 0)[: MIN_IMAGES - 1]
    few = right.take(np.sort(np.concatenate([rows, np.flatnonzero(right.category != 0)])))
    assert [name for name in wrong_names(few, out_of_fold(few)) if few.category[name.row] == 0] == []


def test_objects_of_one_image_do_not_teach_each_other() -> None:
    group = np.array([3, 3, 8, 1, 8, 1, 5, 5, 5])
    seen = np.zeros(len(group), dtype=int)
    for teach, named in folds_of(group):
        assert not set(group[teach]) & set(group[named])
        seen += named
    assert (seen == 1).all()


def test_a_class_seen_in_one_image_alone_has_no_probability_there() -> None:
    right = objects(0)
    alone = right.group == 4
    category = np.where(alone, len(NAMES), right.category)
    log_probability = out_of_fold(LabelledObjects(right.features, (*NAMES, "pin"), category, right.group))
    assert np.isneginf(log_probability[alone, 4]).all()
    assert np.isfinite(log_probability[:, :4]).all()


def test_look_alike_classes() -> None:
    right = objects(1)
    assert look_alikes(right, out_of_fold(right)) == []
    rng = np.random.default_rng(0)
    features = right.features.copy()
    hook, nut = right.category == 2, right.category == 3
    features[nut] = features[hook] + rng.normal(size=features[hook].shape).astype(np.float32) * 0.3
    alike = LabelledObjects(features, NAMES, right.category, right.group)
    (pair,) = look_alikes(alike, out_of_fold(alike))
    assert (pair.first, pair.second) == ("hook", "nut") and pair.confused > 0.2


def test_objects_of_one_view_count_once() -> None:
    right = objects(2)
    assert view_shares(right) == dict.fromkeys(NAMES, 1.0)
    features = right.features.copy()
    rows = np.flatnonzero(right.category == 1)
    features[rows[:20]] = features[rows[0]] + 0.05 * np.random.default_rng(0).normal(size=(20, features.shape[1]))
    same = LabelledObjects(features, NAMES, right.category, right.group)
    assert view_shares(same) == {**dict.fromkeys(NAMES, 1.0), "gear": 11 / 30}


TRUE = rectangle(SHAPE, 20, 20, 30, 40)
PLANTED = {
    "moved": ndimage.shift(TRUE.astype(np.uint8), (10, 15), order=0) > 0,
    "half": TRUE & (np.arange(SHAPE[1]) < 40),
    "shrunk": ndimage.binary_erosion(TRUE, iterations=5),
    "grown": ndimage.binary_dilation(TRUE, np.ones((3, 3)), iterations=8),
    "two objects": TRUE | rectangle(SHAPE, 10, 60, 50, 50),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_bad_mask_is_found(kind: str) -> None:
    good = annotation(2, "nut", rectangle(SHAPE, 60, 80, 15, 15))
    drawn = proposals([TRUE, rectangle(SHAPE, 60, 80, 15, 16)], quality=[0.9, 0.9])
    (found,) = bad_masks([annotation(1, "bolt", PLANTED[kind]), good], drawn)
    assert found.row == 0 and found.rival == drawn.masks[0]
    assert found.score == pytest.approx(0.9 * (1 - found.iou), rel=1e-5)


def nothing(mask: NDArray[np.bool_], quality: float, owner: NDArray[np.bool_] | None = None) -> bool:
    labels = [annotation(1, "bolt", PLANTED["half"])]
    if owner is not None:
        labels.append(annotation(2, "nut", owner))
    return bad_masks(labels, proposals([mask], quality=[quality])) == []


def test_good_masks_are_not_accused() -> None:
    assert bad_masks([annotation(1, "bolt", TRUE)], proposals([TRUE], quality=[0.99])) == []
    assert nothing(TRUE, 0.5), "the decoder is not sure of its own mask"
    assert nothing(TRUE, 0.95, owner=TRUE), "the decoder's mask is another label's object"
    assert nothing(rectangle(SHAPE, 60, 80, 15, 15), 0.95), "the decoder's mask lies elsewhere"
    assert bad_masks([], proposals([TRUE])) == [] and bad_masks([annotation(1, "bolt", TRUE)], proposals([])) == []
