"""Intervals of many classes at once: how often equal versions are refused, and whether real drops are found."""

from __future__ import annotations

import numpy as np
import pytest

from samif.versions.intervals import simultaneous_intervals

IMAGES, RESAMPLES, CASES = 200, 300, 80


def changes(rng: np.random.Generator, classes: int, share: float, drop: float, dependent: bool) -> np.ndarray:
    """(P, C) change of each class on each image: +1 won, -1 lost. `share` of the images changes by chance, either way
    alike; class 0 loses `drop` of its images besides."""
    found = rng.choice([-1, 0, 1], p=[share / 2, 1 - share, share / 2], size=(IMAGES, classes))
    if dependent:  # classes in pairs on the same images
        found[:, 1::2] = found[:, : classes - 1 : 2][:, : found[:, 1::2].shape[1]]
    found[:, 0] = np.where(rng.random(IMAGES) < drop, -1, found[:, 0])
    return 100.0 * found


def refused(seed: int, classes: int, share: float, drop: float = 0.0, dependent: bool = False) -> tuple[set, set]:
    """Classes whose interval lies below zero: together, and each for itself."""
    rng = np.random.default_rng(seed)
    shown = changes(rng, classes, share, drop, dependent)
    weights = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=RESAMPLES)
    resampled = weights @ shown / IMAGES
    names = [str(number) for number in range(classes)]
    observed = dict(zip(names, shown.mean(axis=0), strict=True))
    together = simultaneous_intervals(observed, dict(zip(names, resampled.T, strict=True)), 0.95, frozenset(names))
    alone = np.percentile(resampled, 97.5, axis=0)
    below = {name for name, (_, high) in together.items() if high is not None and high < 0.0}
    return below, {name for name, high in zip(names, alone, strict=True) if high < 0.0}


@pytest.mark.parametrize(
    ("classes", "share", "dependent"), [(80, 0.2, False), (80, 0.05, False), (20, 0.2, False), (80, 0.2, True)]
)
def test_equal_versions_are_refused_in_at_most_five_of_a_hundred_cases(
    classes: int, share: float, dependent: bool
) -> None:
    cases = [refused(seed, classes, share, dependent=dependent) for seed in range(CASES)]
    together, alone = (np.mean([bool(case[side]) for case in cases]) for side in (0, 1))
    assert together <= 0.05
    assert alone > 0.3  # what the correction is for


@pytest.mark.parametrize(("classes", "drop"), [(80, 0.25), (20, 0.25), (1, 0.2)])
def test_a_real_drop_is_found_among_many_classes(classes: int, drop: float) -> None:
    found = [refused(seed, classes, 0.1, drop)[0] for seed in range(40)]
    assert np.mean(["0" in case for case in found]) >= 0.95
    assert np.mean([bool(case - {"0"}) for case in found]) <= 0.05


def test_more_classes_make_wider_intervals() -> None:
    rng = np.random.default_rng(0)
    values = {str(n): rng.normal(size=2000) for n in range(40)}

    def width(count: int) -> float:
        some = {name: values[name] for name in list(values)[:count]}
        low, high = simultaneous_intervals(dict.fromkeys(some, 0.0), some, 0.95, frozenset(some))["0"]
        assert low is not None and high is not None
        return high - low

    assert width(1) == pytest.approx(2 * 1.96, rel=0.06)
    assert width(1) < width(5) < width(40) == pytest.approx(2 * 3.22, rel=0.06)  # normal, (1 - 0.05 / 40) two-sided


def test_what_did_not_change_or_was_not_seen() -> None:
    nan = np.full(100, np.nan)
    flat, falls = np.zeros(100), np.full(100, -50.0)
    noisy = np.random.default_rng(0).normal(size=100)
    noisy[::3] = np.nan
    found = simultaneous_intervals(
        {"flat": 0.0, "falls": -50.0, "noisy": 0.0, "unseen": 1.0, "unmeasured": None},
        {"flat": flat, "falls": falls, "noisy": noisy, "unseen": nan, "unmeasured": nan},
        0.95, frozenset({"noisy"}),
    )  # fmt: skip
    assert (found["flat"], found["falls"]) == ((0.0, 0.0), (-50.0, -50.0))
    assert found["unseen"] == found["unmeasured"] == (None, None)
    assert found["noisy"][0] is not None and found["noisy"][0] < -1.0
    assert simultaneous_intervals({}, {}, 0.95, frozenset()) == {}


def test_a_class_that_is_not_judged_widens_nothing() -> None:
    rng = np.random.default_rng(0)
    values = {"judged": rng.normal(size=1000)} | {str(n): rng.standard_t(2, size=1000) for n in range(30)}
    narrow = simultaneous_intervals(dict.fromkeys(values, 0.0), values, 0.95, frozenset({"judged"}))["judged"]
    wide = simultaneous_intervals(dict.fromkeys(values, 0.0), values, 0.95, frozenset(values))["judged"]
    assert narrow[1] is not None and wide[1] is not None and narrow[1] < 0.7 * wide[1]
