"""The rule that stops a canary: its rate of false alarms, how soon it stops a bad one, and what it observes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samif.inference.segment import UNKNOWN
from samif.watch.canary import (
    BOUNDS,
    CHANGED,
    CONFIDENCE,
    ENOUGH,
    ERRORS,
    FALSE_ALARM,
    LATENCY,
    NAMED,
    TAIL,
    UNKNOWNS,
    CanaryEvidence,
    pooled,
)
from samif.watch.observe import MARGIN, OBJECTS
from samif.watch.paired import differences, latency, outcome
from samif.watch.sequential import FRACTIONS, Evidence
from tests.support.canary_streams import EQUAL, LARGE, draw, stopped_at

STREAMS, LENGTH = 1000, 1000
FIRST = {ERRORS: 3, LATENCY: 14, TAIL: 6, NAMED: 20, CHANGED: 11, CONFIDENCE: 20, UNKNOWNS: 28}
"""The least number of requests at which each check stops: all observations are as bad as they can be."""


def values(objects: float, unknown: float = 0.0, margin: float | None = 0.5, **classes: float) -> dict[str, float]:
    """The statistics of an image, as `samif.watch.observe` names them."""
    counts = {f"class {name}": count for name, count in classes.items()}
    return {OBJECTS: objects, UNKNOWN: unknown} | counts | ({} if margin is None else {MARGIN: margin})


# The false alarms


@pytest.mark.parametrize("means", [EQUAL, BOUNDS], ids=["equal", "at all bounds"])
def test_of_a_thousand_streams_within_the_bounds_the_stated_share_is_stopped_at_most(means: dict[str, float]) -> None:
    rng = np.random.default_rng(11)
    spread = {NAMED: 0.1, CHANGED: 0.1, CONFIDENCE: 0.05, UNKNOWNS: 0.05}
    stopped = np.zeros(STREAMS, dtype=bool)
    for check in BOUNDS:
        streams = draw(rng, check, means[check], spread.get(check, 0.0), (STREAMS, LENGTH))
        stopped |= stopped_at(check, streams) <= LENGTH
    assert stopped.mean() <= (0.0 if means is EQUAL else FALSE_ALARM)


def test_at_its_bound_a_check_of_yes_or_no_stops_its_share_at_most_and_some() -> None:
    """The worst case of each check: the largest variance at the bound."""
    rng = np.random.default_rng(12)
    rates = {}
    for check, bound in BOUNDS.items():
        streams = (rng.random((STREAMS, LENGTH)) < bound).astype(np.float64)
        rates[check] = float((stopped_at(check, streams) <= LENGTH).mean())
    assert sum(rates.values()) <= FALSE_ALARM * 1.5 and max(rates.values()) > 0.0, rates


def test_a_version_beyond_a_bound_is_stopped_in_the_end() -> None:
    rng = np.random.default_rng(13)
    for check, bound in BOUNDS.items():
        streams = (rng.random((50, 5000)) < bound + 0.1).astype(np.float64)
        assert (stopped_at(check, streams) <= 5000).all(), check


# How soon


@pytest.mark.parametrize("effect", LARGE)
def test_a_large_effect_is_found_within_the_promised_requests(effect: str) -> None:
    check, mean, spread = LARGE[effect]
    streams = draw(np.random.default_rng(14), check, mean, spread, (STREAMS, 2 * ENOUGH))
    at = stopped_at(check, streams)
    assert (at <= ENOUGH).mean() >= 0.99, np.quantile(at, (0.5, 0.99))


@pytest.mark.parametrize("check", BOUNDS)
def test_the_soonest_stop(check: str) -> None:
    evidence, requests = CanaryEvidence(), 0
    while evidence.reason is None:
        evidence, requests = evidence.after({check: 1.0}, 1), requests + 1
    assert requests == evidence.requests == FIRST[check]
    assert evidence.reason.startswith(f"{check}: ")
    (at,) = stopped_at(check, np.ones((1, 100)))
    assert at == requests


@pytest.mark.parametrize(
    ("check", "observation", "sentence"),
    [
        (ERRORS, 1.0, "errors: it failed 100% of the requests that the champion answered"),
        (LATENCY, 1.0, "latency: it took more than 1.5 times as long as the champion for 100% of the images"),
        (NAMED, 0.9, "objects named: it names 80% fewer objects than the champion"),
        (CHANGED, 0.9, "names changed: 90% of the names differ from the champion's"),
        (CONFIDENCE, 0.9, "confidence: its best class leads the runner-up by 0.40 less than the champion's"),
        (UNKNOWNS, 1.0, "unknown share: its share of unknown objects is 0.50 higher than the champion's"),
    ],
)
def test_the_reason_says_what_and_how_much(check: str, observation: float, sentence: str) -> None:
    evidence = CanaryEvidence()
    while evidence.reason is None:
        evidence = evidence.after({check: observation})
    assert evidence.reason == sentence


# The evidence of several replicas


def test_the_evidence_of_replicas_adds_up_in_any_order() -> None:
    rng = np.random.default_rng(15)
    parts, whole = [CanaryEvidence() for _ in range(4)], CanaryEvidence()
    for number in range(200):
        seen = {check: float(rng.random()) for check in BOUNDS if rng.random() < 0.8}
        parts[number % 4] = parts[number % 4].after(seen, 1)
        whole = whole.after(seen, 1)
    for order in (parts, parts[::-1]):
        both = pooled(order)
        assert both.requests == whole.requests == 200
        for check in BOUNDS:
            assert both.checks[check].log_stakes == pytest.approx(whole.checks[check].log_stakes)
            assert both.checks[check].mean == pytest.approx(whole.checks[check].mean)
    assert CanaryEvidence.model_validate_json(whole.model_dump_json()) == whole


def test_without_observations_nothing_is_known() -> None:
    assert CanaryEvidence().reason is None and CanaryEvidence().numbers == {"requests": 0.0}
    assert Evidence().mean == 0.0 and Evidence().log_stake == pytest.approx(0.0)
    assert len(Evidence().log_stakes) == len(FRACTIONS)
    some = CanaryEvidence().after(outcome(False) | latency(1.0, 1.0), 1)
    assert some.numbers == {"requests": 1.0, ERRORS: 0.0, LATENCY: 0.0, TAIL: 0.0} and some.compared == 1


# What one image says


def test_equal_answers_are_no_difference() -> None:
    same = values(5, 1, 0.4, bolt=3, gear=1)
    found = differences(same, same, ("bolt", "gear"))
    assert found == {NAMED: 0.5, CHANGED: 0.0, CONFIDENCE: 0.5, UNKNOWNS: 0.5}


@pytest.mark.parametrize(
    ("canary", "champion", "expected"),
    [
        (values(0, bolt=0), values(4, bolt=4), {NAMED: 1.0, CHANGED: 1.0}),
        (values(2, bolt=2), values(4, bolt=4), {NAMED: 0.75, CHANGED: 0.5}),
        (values(8, bolt=8), values(4, bolt=4), {NAMED: 0.25, CHANGED: 0.5}),
        (values(4, gear=4), values(4, bolt=4), {NAMED: 0.5, CHANGED: 1.0}),
        (values(4, bolt=3, gear=1), values(4, bolt=4), {CHANGED: 0.4}),
        (values(4, bolt=3, wing=1), values(4, unknown=1, bolt=3), {NAMED: 0.375, CHANGED: 0.0, UNKNOWNS: 0.25}),
        (values(4, wing=4), values(4, bolt=4), {NAMED: 0.5, CHANGED: 0.0}),
        (values(3, gear=1, wing=2), values(4, bolt=4), {CHANGED: 3 / 5}),
        (values(2, bolt=1, wing=1), values(4, bolt=4), {NAMED: 0.75, CHANGED: 0.5}),
        (values(4, gear=4), values(4, wing=4), {NAMED: 0.5, CHANGED: 1.0}),
        (values(4, unknown=4), values(4, bolt=4), {NAMED: 1.0, UNKNOWNS: 1.0}),
        (values(4, unknown=1, bolt=3), values(4, bolt=4), {UNKNOWNS: 0.75}),
        (values(1, margin=0.2, bolt=1), values(1, margin=0.5, bolt=1), {CONFIDENCE: 0.8}),
        (values(1, margin=0.9, bolt=1), values(1, margin=0.1, bolt=1), {CONFIDENCE: 0.0}),
    ],
)
def test_what_an_image_says(canary: dict[str, float], champion: dict[str, float], expected: dict[str, float]) -> None:
    found = differences(canary, champion, ("bolt", "gear"))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_an_image_that_says_nothing_is_no_observation() -> None:
    assert differences(values(0, margin=None), values(0, margin=None), ("bolt",)) == {}
    found = differences(values(0, margin=None), values(2, 2, margin=0.5), ("bolt",))
    assert found == {UNKNOWNS: 0.0}


@pytest.mark.parametrize(
    ("canary", "expected"), [(1.49, (0.0, 0.0)), (1.51, (1.0, 0.0)), (2.99, (1.0, 0.0)), (3.01, (1.0, 1.0))]
)
def test_what_the_seconds_say(canary: float, expected: tuple[float, float]) -> None:
    assert latency(canary, 1.0) == dict(zip((LATENCY, TAIL), expected, strict=True))
    assert latency(canary / 100, 0.01) == latency(canary, 1.0)


def test_every_bound_is_inside_and_its_sentence_is_there() -> None:
    assert all(0.0 < bound < 1.0 for bound in BOUNDS.values())
    assert math.isclose(sum(FRACTIONS), 1.55) and max(FRACTIONS) < 1.0
