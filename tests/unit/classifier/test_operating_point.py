"""The operating point: false names are counted, intervals hold, too little evidence is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samif.classifier.operating_point import IMAGES, NamingEvidence, choose_point, naming_curve, rates_of
from samif.errors import DataError


def evidence(images: int, right: list[float], false: list[float], name: str = "bolt") -> NamingEvidence:
    scores = np.array([*right, *false])
    truth = np.array([True] * len(right) + [False] * len(false), dtype=bool)
    return NamingEvidence(images, {name: max(1, len(right)), "gear": 4}, [name] * len(scores), scores, truth)


def false_from(found: NamingEvidence, score: float) -> int:
    return int(((found.scores >= score) & ~found.right).sum())


def test_the_lowest_score_that_keeps_the_limit() -> None:
    found = evidence(40, [0.9, 0.7, 0.5, 0.3, 0.1], [0.8, 0.6, 0.4, 0.2, 0.05])
    point = choose_point(found, 75.0)  # three false names on 40 images
    assert 0.2 < point.score < 0.3
    assert point.rates.false_names.value == 75.0
    assert point.rates.named is not None and point.rates.named.value == pytest.approx(4 / 9)


def test_everything_is_named_where_nothing_is_false() -> None:
    assert choose_point(evidence(40, [0.9, 0.1], []), 75.0).score == 0.0


@pytest.mark.parametrize(("images", "limit", "needed"), [(29, 100.0, "30"), (599, 5.0, "600"), (2, 1000.0, "3")])
def test_too_few_images_are_refused_with_the_number_needed(images: int, limit: float, needed: str) -> None:
    with pytest.raises(DataError, match=rf"cannot be shown on {images} training images; label at least {needed},"):
        choose_point(evidence(images, [0.9], []), limit)
    choose_point(evidence(int(needed), [0.9], []), limit)


def test_a_class_has_its_own_limit_but_never_a_lower_score() -> None:
    found = evidence(100, [0.9, 0.7, 0.2], [0.6, 0.5, 0.4, 0.3, 0.1])
    line = choose_point(found, 50.0)
    strict = choose_point(found, 50.0, {"bolt": 30.0})
    assert strict.score == line.score == strict.score_of("gear")
    assert strict.score_of("bolt") > line.score and false_from(found, strict.score_of("bolt")) == 3
    assert choose_point(found, 30.0, {"bolt": 50.0}).score_of("bolt") == choose_point(found, 30.0).score


def test_a_limit_of_a_class_that_was_not_measured_is_refused() -> None:
    with pytest.raises(DataError, match="class 'fuse' has a limit of false names"):
        choose_point(evidence(100, [0.9], []), 50.0, {"fuse": 50.0})


@given(st.lists(st.floats(0.0, 1.0), max_size=30), st.lists(st.floats(0.0, 1.0), max_size=30), st.floats(31.0, 2000.0))
def test_the_limit_is_never_exceeded(right: list[float], false: list[float], limit: float) -> None:
    found = evidence(100, right, false)
    point = choose_point(found, limit)
    assert false_from(found, point.score) * IMAGES / 100 <= limit
    assert point.score >= 0.0


def test_intervals_hold_what_is_true_nineteen_times_out_of_twenty() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        rates = rates_of(int(rng.binomial(200, 0.8)), 200, int(rng.poisson(0.1 * 120)), 120)
        assert rates.named is not None
        inside.append(
            (rates.named.low <= 0.8 <= rates.named.high, rates.false_names.low <= 100 <= rates.false_names.high)
        )
    assert (np.mean(inside, axis=0) > 0.92).all()


@given(st.integers(1, 2000), st.floats(0, 1))
def test_an_interval_holds_its_value(objects: int, share: float) -> None:
    for right in (0, round(share * objects), objects):
        named = rates_of(right, objects, 0, 1).named
        assert named is not None and 0.0 <= named.low <= named.value <= named.high <= 1.0


def test_no_false_name_still_leaves_an_upper_end() -> None:
    rates = rates_of(0, 0, 0, 100)
    assert rates.named is None
    assert (rates.false_names.value, rates.false_names.low) == (0.0, 0.0)
    assert rates.false_names.high == pytest.approx(36.9, abs=0.1)


def test_the_curve_rises_as_the_score_falls() -> None:
    curve = naming_curve(evidence(10, [0.9, 0.5, 0.1], [0.7, 0.2]))
    assert [rate.score for rate in curve] == sorted((rate.score or 0.0 for rate in curve), reverse=True)
    false = [rate.false_names.value for rate in curve]
    assert false == sorted(false) and (false[0], false[-1]) == (0.0, 200.0)
