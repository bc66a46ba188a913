"""Limits keep the stated rate on streams that they have not seen, and shifts are found."""

from __future__ import annotations

import numpy as np
import pytest

from samif.config.watch import WatchParams
from samif.errors import SamifError
from samif.watch.calibrate import LEAST_DIFFERENT, _joint_limits, calibrate, embedding_space
from samif.watch.charts import DOUBT, EMBEDDING, Levels, Normal
from samif.watch.observe import Observation, statistics_of

NAMES = statistics_of(("bolt", "gear"))
WIDTH = 6
QUICK = WatchParams(window=20, horizon=150, streams=400, directions=4)


def images(count: int, seed: int, unknown: float = 0.1, margin: float = 0.8, bolts: float = 1.0, light: float = 0.0,
             likeness: float = 0.0):  # fmt: skip
    """Drawn images: unknown objects are binomial, margins beta, class counts Poisson, embeddings correlated; doubtful
    objects are few and like any class."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(1).normal(size=(WIDTH, WIDTH))
    seen = []
    for _ in range(count):
        found = int(rng.poisson(5))
        values = {"objects": float(found), "background": float(rng.beta(4, 12))}
        if found:
            values |= {
                "unknown": float(rng.binomial(found, unknown)),
                "margin": float(rng.beta(20 * margin, 20 - 20 * margin)),
            }
        values |= {f"class {n}": float(c) for n, c in (("bolt", rng.poisson(bolts)), ("gear", rng.poisson(0.5))) if c}
        embedding = (mix @ rng.normal(size=WIDTH) + light).astype(np.float32)
        doubts = rng.normal(likeness, 1.0, size=(rng.poisson(1.0), 2))
        doubt = np.append(doubts.sum(axis=0), len(doubts)).astype(np.float32)
        seen.append(Observation(values, embedding, (), np.zeros((0, 3), np.float32), doubt))
    return seen


def first_alarms(seen: list[Observation], normal: Normal) -> dict[str, int]:
    """Chart -> how many images it took."""
    levels, found = Levels.start(normal), {}
    for number, image in enumerate(seen, start=1):
        levels = levels.after(*normal.measure(image), normal)
        for reading in levels.readings(normal):
            if reading.side:
                found.setdefault(f"{reading.name} {reading.side}", number)
    return found


@pytest.fixture(scope="module")
def normal() -> Normal:
    training = np.stack([seen.embedding for seen in images(200, 100)])
    return calibrate(images(150, 101), NAMES, embedding_space(training, 4), QUICK)


def test_undisturbed_streams_keep_the_stated_rate() -> None:
    """Over references and streams alike: 60 streams against 6 references, at a rate of one in five."""
    params = QUICK.model_copy(update={"false_alarm": 0.2, "streams": 600})
    alarmed = 0
    for reference in range(6):
        training = np.stack([seen.embedding for seen in images(200, 1000 + reference)])
        normal = calibrate(images(100, 2000 + reference), NAMES, embedding_space(training, 4), params)
        streams = (images(params.horizon, 3000 + 100 * reference + s) for s in range(10))
        alarmed += sum(bool(first_alarms(seen, normal)) for seen in streams)
    assert 2 <= alarmed <= 24  # 12 expected; beyond these lies less than one in a thousand


@pytest.mark.parametrize(
    ("change", "chart"),
    [
        ({"unknown": 0.4}, "unknown high"),
        ({"margin": 0.6}, "margin low"),
        ({"bolts": 2.5}, "class bolt high"),
        ({"bolts": 0.05}, "class bolt low"),
        ({"light": 1.5}, f"{EMBEDDING} high"),
        ({"likeness": 1.5}, f"{DOUBT} high"),
    ],
)
def test_a_change_is_found_by_its_own_chart(normal: Normal, change: dict[str, float], chart: str) -> None:
    found = first_alarms(images(40, 7) + images(100, 8, **change), normal)
    assert 40 < found[chart] < 100 and min(found.values()) > 40


@pytest.mark.parametrize("change", [{"unknown": 0.0}, {"margin": 0.95}])
def test_what_gets_better_is_no_alarm(normal: Normal, change: dict[str, float]) -> None:
    assert not {"unknown", "margin"} & {name.split()[0] for name in first_alarms(images(200, 9, **change), normal)}


def test_statistics_that_params_leave_out_are_not_watched(normal: Normal) -> None:
    params = QUICK.model_copy(update={"statistics": ["unknown"]})
    alone = calibrate(images(150, 101), NAMES, normal.regions[EMBEDDING].space, params)
    watched = [r.name for r in Levels.start(alone).readings(alone) if r.low is not None or r.high is not None]
    assert watched == ["unknown"]
    # the whole rate is its own now
    assert alone.high[NAMES.index("unknown")] < normal.high[NAMES.index("unknown")]


@pytest.mark.parametrize(("shown", "watched"), [(LEAST_DIFFERENT - 1, False), (LEAST_DIFFERENT, True)])
def test_a_class_is_watched_where_enough_reference_images_show_it(normal: Normal, shown: int, watched: bool) -> None:
    reference = [
        Observation({**seen.values, "class gear": float(i < shown)}, seen.embedding, (), seen.features, seen.doubt)
        for i, seen in enumerate(images(60, 5))
    ]
    high = calibrate(reference, NAMES, normal.regions[EMBEDDING].space, QUICK).high[NAMES.index("class gear")]
    assert np.isfinite(high) == watched


def test_a_lower_limit_below_zero_is_none(normal: Normal) -> None:
    assert all(low > 0.0 for low in normal.low[np.isfinite(normal.low)])


def test_equal_reference_gives_equal_limits(normal: Normal) -> None:
    again = calibrate(images(150, 101), NAMES, normal.regions[EMBEDDING].space, QUICK)
    assert np.array_equal(again.high, normal.high) and all(
        again.regions[name].reach == normal.regions[name].reach for name in (EMBEDDING, DOUBT)
    )


def test_a_shorter_reference_gives_wider_limits(normal: Normal) -> None:
    few = calibrate(images(150, 101)[:25], NAMES, normal.regions[EMBEDDING].space, QUICK)
    spread = np.std([seen.values["background"] for seen in images(150, 101)])
    wide = [(n.high - n.centre)[NAMES.index("background")] / spread for n in (few, normal)]
    assert wide[0] > wide[1]


def test_too_few_reference_images_are_refused(normal: Normal) -> None:
    with pytest.raises(SamifError, match="19 reference images are too few"):
        calibrate(images(19, 5), NAMES, normal.regions[EMBEDDING].space, QUICK)


def test_batches_ask_for_wider_limits(normal: Normal) -> None:
    """Images that come in runs of ten equal ones: as if single, their levels would wander out of the limits."""
    runs = [seen for seen in images(30, 11) for _ in range(10)]
    single = calibrate(runs, NAMES, normal.regions[EMBEDDING].space, QUICK)
    in_runs = calibrate(runs, NAMES, normal.regions[EMBEDDING].space, QUICK.model_copy(update={"block": 10}))
    assert in_runs.high[NAMES.index("unknown")] > single.high[NAMES.index("unknown")]


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3])
def test_joint_limits_are_passed_at_the_rate_whatever_the_dependence(rate: float) -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(4000, 1))
    excess = np.concatenate([common, common, rng.exponential(size=(4000, 3))], axis=1)
    passed = (excess > _joint_limits(excess, rate)).any(axis=1).mean()
    assert rate - 0.01 <= passed <= rate + 0.005


def test_directions_are_at_most_a_quarter_of_the_images() -> None:
    training = np.random.default_rng(0).normal(size=(20, 40))
    assert embedding_space(training, 16).directions.shape == (40, 5)


def test_training_images_have_unit_variance_in_their_directions() -> None:
    training = np.random.default_rng(0).normal(size=(400, 5)) * np.array([1.0, 10.0, 0.1, 3.0, 2.0])
    places = embedding_space(training, 5).place(training)
    assert np.allclose(places.mean(axis=0), 0.0) and np.allclose(places.std(axis=0, ddof=1), 1.0)
