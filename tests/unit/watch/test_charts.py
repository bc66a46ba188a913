"""Charts: levels are exponentially weighted means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samif.watch.charts import EMBEDDING, Baseline, Levels, Reading
from samif.watch.projection import Projection, Region

NAMES = ("unknown", "class bolt")


def baseline(window: int = 9, centre: tuple[float, float] = (0.2, 1.0), radius: float = 3.0) -> Baseline:
    region = Region(Projection(np.zeros(2), np.eye(2)), np.zeros(2), radius)
    low, high = np.array([-np.inf, 0.5]), np.array([0.4, np.inf])
    return Baseline(NAMES, np.array(centre), low, high, None, {EMBEDDING: region}, window, 50)


@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(0, 1)), st.integers(0, 9)), max_size=40), st.integers(2, 60))
def test_a_level_is_the_weighted_mean_of_what_was_there(images: list[tuple[float | None, int]], window: int) -> None:
    state, rule = Levels.start(baseline(window)), baseline(window)
    for share, bolts in images:
        values = {"class bolt": float(bolts)} | ({} if share is None else {"unknown": share})
        state = state.after(values, {EMBEDDING: np.zeros(2)}, rule)
    weight = 2.0 / (window + 1.0)
    for column, shown in enumerate(([s for s, _ in images if s is not None], [b for _, b in images])):
        ages = np.arange(len(shown))[::-1]
        expected = (1 - weight) ** len(shown) * rule.centre[column] + sum(
            weight * (1 - weight) ** ages * np.array(shown)
        )
        assert state.values[column] == pytest.approx(expected, abs=1e-9)


def test_a_class_of_which_nothing_is_found_counts_as_zero_and_an_undefined_share_not_at_all() -> None:
    state = Levels.start(baseline()).after({}, {EMBEDDING: np.zeros(2)}, baseline())
    assert state.values.tolist() == pytest.approx([0.2, 0.8])


def test_the_embedding_chart_measures_in_standard_errors() -> None:
    """A level of n undisturbed images has variance weight / (2 - weight) in the long run."""
    rng, rule = np.random.default_rng(0), baseline()
    state, squares = Levels.start(rule), []
    for number in range(6000):
        state = state.after({}, {EMBEDDING: rng.normal(size=2)}, rule)
        if number > 100:
            squares.append(state.readings(rule)[-1].level ** 2)
    assert np.mean(squares) == pytest.approx(2.0, rel=0.1)  # chi-squared of two directions


@pytest.mark.parametrize(
    ("level", "low", "high", "side"),
    [(0.5, 0.5, 0.7, None), (0.499, 0.5, 0.7, "low"), (0.7, 0.5, 0.7, None), (0.701, 0.5, 0.7, "high"),
     (99.0, 0.5, None, None), (-99.0, None, 0.7, None)],
)  # fmt: skip
def test_a_level_on_the_limit_is_no_alarm(
    level: float, low: float | None, high: float | None, side: str | None
) -> None:
    assert Reading("x", level, 0.6, low, high).side == side


def test_readings_name_every_chart_and_only_watched_sides() -> None:
    readings = Levels.start(baseline(radius=np.inf)).readings(baseline(radius=np.inf))
    assert [(r.name, r.low, r.high) for r in readings] == [
        ("unknown", None, 0.4), ("class bolt", 0.5, None), (EMBEDDING, None, None),
    ]  # fmt: skip
