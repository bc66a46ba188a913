"""Gates: each threshold from both sides, and what must never pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samif.classifier.operating_point import rates_of
from samif.config import GatesParams
from samif.evaluate.model import Evaluation, Naming
from samif.versions.card import Card
from samif.versions.compare import Change, Comparison
from samif.versions.gates import VersionStatus, evaluate_gates
from samif.versions.verdict import Verdict

SETS = {name: sha256(name.encode()).hexdigest() for name in ("mine", "other")}
SMOOTH = GatesParams.model_validate({"max_drop": dict.fromkeys(("base", "novel", "all", "each_class"))})
"""A policy without drop limits: the rest can be looked at alone."""


def sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def card(
    base: tuple[str, ...] = ("bolt", "gear"),
    novel: tuple[str, ...] = ("hook",),
    decoder: str = "decoder",
    rows: Mapping[str, str] | None = None,
) -> Card:
    classes = (*base, *novel)
    identity = dict.fromkeys(("dataset", "params", "encoder", "classifier", "evaluation"), sha("x"))
    return Card.model_validate(
        {
            "line": "demo",
            "name": "s1",
            "after": "base",
            "classes": classes,
            "identity": identity | {"decoder": sha(decoder)},
            "rows": {name: sha((rows or {}).get(name, name)) for name in classes},
            "encoder": {"name": "tiny", "digest": sha("x"), "checkpoint": None},
            "decoder": {"sha256": sha(decoder)},
            "pretrain_classes": "base",
            "provenance": {
                "created": datetime(2026, 1, 1, tzinfo=UTC), "who": "ann", "why": "", "commit": None, "dvc_lock": None,
                "data_revision": None, "samif": "0.1.0",
            },
        }
    )  # fmt: skip


def evaluation(
    ap: float | None = 50.0,
    novel: tuple[str, ...] = ("hook",),
    dataset: str = "mine",
    false_positives: float | None = 0.5,
    instances: int = 30,
    **of_class: float | None,
) -> Evaluation:
    groups = {"bolt": "base", "gear": "base"} | dict.fromkeys(novel, "novel")
    labels = [*groups, "background"]
    scores = {"base": ap, "novel": ap if novel else None, "all": ap}
    return Evaluation.model_validate(
        {
            "name": "s1",
            "classes": {"base": ["bolt", "gear"], "novel": list(novel)},
            "images": 40,
            "dataset": SETS[dataset],
            "ap": scores,
            "ap50": scores,
            "per_class": {
                name: {"ap": of_class.get(name, ap), "ap50": of_class.get(name, ap), "instances": instances, "group": g}
                for name, g in groups.items()
            },
            "base_only": {"images": 2, "ap": ap, "ap50": ap},
            "unknown": {"auroc": 0.9, "unlabelled_false_positives_per_image": false_positives, "objects": 5},
            "confusion": {"labels": labels, "matrix": [[0] * len(labels) for _ in labels]},
            "operating_score": 0.3,
            "seconds": 1.0,
        }
    )


def change(drop: float, low: float, high: float, instances: int = 30, before: float | None = 50.0) -> Change:
    """A drop of so many points, with the interval of the change."""
    after = None if before is None else before - drop
    return Change(before=before, after=after, low=low, high=high, instances=instances)


SAME = change(0.0, 0.0, 0.0)


def comparison(
    classes: Mapping[str, Change] | None = None,
    tags: Change = SAME,
    named: Change | None = None,
    false_names: Change | None = None,
    **groups: Change,
) -> Comparison:
    return Comparison(
        metric="ap",
        images=40,
        resamples=1000,
        confidence=0.95,
        groups=dict.fromkeys(("base", "novel", "all"), SAME) | groups,
        classes=dict(classes or {}),
        unlabelled_false_positives=tags,
        named=named,
        false_names=false_names,
        added=(),
        lost=(),
    )


def status(version: str = "demo-classifier/2", of: Card | None = None, **changes: Any) -> VersionStatus:
    given = {"registered": evaluation(), "scored": evaluation()} | changes
    return VersionStatus(version, of or card(), **given)


CHAMPION = status("demo-classifier/1")


def ask(compared: Comparison | None, policy: GatesParams | None = None, **changes: Any) -> Verdict:
    return evaluate_gates(policy or GatesParams(), status(**changes), CHAMPION, compared)


def of(verdict: Verdict, name: str, subject: str) -> str:
    return next(check.outcome for check in verdict.checks if (check.name, check.subject) == (name, subject))


def test_an_equal_version_passes_every_question() -> None:
    verdict = ask(comparison({"bolt": SAME, "gear": SAME, "hook": SAME}))
    assert verdict.outcome == "passed", verdict.reasons("failed", "unclear")


@pytest.mark.parametrize(
    ("drop", "low", "high", "outcome"),
    [
        (0.50, -0.9, -0.1, "passed"),  # at the limit, and surely a drop
        (0.51, -0.9, -0.1, "failed"),  # beyond it, and surely a drop
        (0.51, -1.1, 0.0, "unclear"),  # beyond it, but zero is in the interval
        (5.00, -11.0, 0.1, "unclear"),
        (5.00, -11.0, -0.01, "failed"),
        (-3.0, 1.0, 5.0, "passed"),  # a gain
    ],
)
@pytest.mark.parametrize("group", ["base", "all"])
def test_a_drop_of_a_group_is_judged_by_limit_and_noise(
    group: str, drop: float, low: float, high: float, outcome: str
) -> None:
    limit = GatesParams.model_validate({"max_drop": {"base": 0.5, "all": 0.5}})
    verdict = ask(comparison(**{group: change(drop, low, high)}), limit)
    assert (of(verdict, "drop", group), verdict.outcome) == (outcome, outcome)


@pytest.mark.parametrize(
    ("drop", "instances", "outcome"), [(10.0, 20, "passed"), (10.01, 20, "failed"), (10.01, 19, "skipped")]
)
def test_a_class_is_judged_from_enough_objects_on(drop: float, instances: int, outcome: str) -> None:
    verdict = ask(comparison({"bolt": change(drop, -20.0, -1.0, instances)}))
    assert of(verdict, "drop", "bolt") == outcome
    assert verdict.outcome == ("failed" if outcome == "failed" else "passed")


def test_a_group_of_too_few_objects_is_for_a_person_to_judge() -> None:
    few = change(0.0, 0.0, 0.0, instances=19)
    assert ask(comparison(base=few)).outcome == "unclear"


def test_one_class_may_have_its_own_limit() -> None:
    policy = GatesParams.model_validate({"max_drop": {"each_class": 10.0, "classes": {"bolt": 1.0, "gear": None}}})
    dropped = change(1.5, -2.0, -1.0)
    much = change(30.0, -40.0, -20.0)
    verdict = ask(comparison({"bolt": dropped, "hook": dropped, "gear": much}), policy)
    assert [(c.subject, c.outcome) for c in verdict.checks if c.name == "drop"] == [
        ("bolt", "failed"),
        ("hook", "passed"),
    ]


@pytest.mark.parametrize("missing", ["base", "all"])
def test_a_missing_number_fails(missing: str) -> None:
    gone = Change(before=50.0, after=None, low=None, high=None, instances=30)
    assert of(ask(comparison(**{missing: gone})), "drop", missing) == "failed"
    assert of(ask(comparison(tags=gone)), "false positives", "rise") == "failed"
    assert of(ask(None), "drop", "all") == "failed"


def test_before_the_first_novel_class_none_can_have_dropped() -> None:
    none = Change(before=None, after=None, low=None, high=None, instances=0)
    verdict = ask(comparison(novel=none))
    assert (of(verdict, "drop", "novel"), verdict.outcome) == ("skipped", "passed")


@pytest.mark.parametrize(
    ("rise", "low", "high", "outcome"),
    [(0.20, 0.1, 0.3, "passed"), (0.21, 0.1, 0.3, "failed"), (0.21, 0.0, 0.4, "unclear"), (-1.0, -2.0, 0.0, "passed")],
)
def test_unlabelled_false_positives_may_rise_so_much(rise: float, low: float, high: float, outcome: str) -> None:
    tags = Change(before=0.0, after=rise, low=low, high=high, instances=5)
    assert of(ask(comparison(tags=tags), SMOOTH), "false positives", "rise") == outcome


@pytest.mark.parametrize(("value", "outcome"), [(0.5, "passed"), (0.51, "failed"), (None, "failed")])
def test_unlabelled_false_positives_have_a_ceiling(value: float | None, outcome: str) -> None:
    policy = GatesParams(max_unlabelled_false_positives=0.5)
    registered = evaluation(false_positives=value)
    verdict = ask(comparison(), policy, registered=registered, scored=registered)
    assert of(verdict, "false positives", "number") == outcome


@pytest.mark.parametrize(
    ("drop", "low", "high", "outcome"),
    [
        (3.0, -4.0, -2.0, "passed"),
        (3.1, -5.0, -1.0, "failed"),
        (3.1, -7.0, 0.5, "unclear"),
        (-9.0, 5.0, 12.0, "passed"),
    ],
)
def test_named_objects_may_drop_so_much(drop: float, low: float, high: float, outcome: str) -> None:
    found = ask(comparison(named=change(drop, low, high)), SMOOTH)
    assert of(found, "names", "named objects") == outcome
    assert of(found, "names", "false names rise") == "skipped"


@pytest.mark.parametrize(
    ("rise", "low", "high", "outcome"),
    [
        (50.0, 40.0, 60.0, "passed"),
        (51.0, 40.0, 60.0, "failed"),
        (51.0, -1.0, 99.0, "unclear"),
        (-80.0, -90.0, -70.0, "passed"),
    ],
)
def test_false_names_may_rise_so_much(rise: float, low: float, high: float, outcome: str) -> None:
    false_names = Change(before=100.0, after=100.0 + rise, low=low, high=high, instances=12)
    assert of(ask(comparison(false_names=false_names), SMOOTH), "names", "false names rise") == outcome


@pytest.mark.parametrize(("count", "outcome"), [(4, "passed"), (5, "unclear"), (12, "failed"), (None, "failed")])
def test_false_names_have_a_ceiling(count: int | None, outcome: str) -> None:
    """On 40 images, at most 100 per 1,000; without a measurement there is nothing to pass."""
    naming = None if count is None else Naming(limit=None, rates=rates_of(30, 40, count, 40), classes={}, curve=[])
    registered = evaluation().model_copy(update={"naming": naming})
    verdict = ask(comparison(), GatesParams(max_false_names=100.0), registered=registered, scored=registered)
    assert of(verdict, "names", "false names") == outcome


@pytest.mark.parametrize(("value", "outcome"), [(40.0, "passed"), (39.99, "failed"), (None, "failed")])
def test_floors_hold_without_a_live_version_too(value: float | None, outcome: str) -> None:
    policy = GatesParams.model_validate({"floors": {"base": 40.0, "each_class": 40.0}})
    found = evaluation(ap=value)
    verdict = evaluate_gates(policy, status(registered=found, scored=found), None, None)
    assert of(verdict, "floor", "base") == of(verdict, "floor", "bolt") == verdict.outcome == outcome


def test_a_floor_of_a_class_that_is_not_there_fails() -> None:
    policy = GatesParams.model_validate({"floors": {"classes": {"wing": 10.0}}})
    assert of(evaluate_gates(policy, status(), None, None), "floor", "wing") == "failed"


@pytest.mark.parametrize("instances", [19, 20])
def test_floors_need_enough_objects(instances: int) -> None:
    policy = GatesParams.model_validate({"floors": {"each_class": 60.0}})
    found = evaluation(instances=instances)
    verdict = evaluate_gates(policy, status(registered=found, scored=found), None, None)
    assert of(verdict, "floor", "bolt") == ("failed" if instances == 20 else "skipped")


def test_the_metric_is_the_policys() -> None:
    policy = GatesParams.model_validate({"metric": "ap50", "floors": {"base": 55.0}})
    found = evaluation(ap=50.0)
    better = found.model_copy(update={"ap50": found.ap50.model_copy(update={"base": 55.0})})
    assert evaluate_gates(policy, status(registered=better, scored=better), None, None).outcome == "passed"
    assert evaluate_gates(policy, status(registered=found, scored=found), None, None).outcome == "failed"


# The version itself


def test_what_is_not_as_its_card_says_fails() -> None:
    verdict = ask(comparison(), complaints=("classifier: 0123, but the card's is 4567",))
    assert of(verdict, "verified", "card") == "failed"


@pytest.mark.parametrize("allowed", [True, False])
def test_another_decoder(allowed: bool) -> None:
    policy = GatesParams(same_decoder=not allowed)
    verdict = ask(comparison(), policy, of=card(decoder="another"))
    assert of(verdict, "decoder", "decoder") == ("skipped" if allowed else "failed")


@pytest.mark.parametrize("kind", ["identical", "any"])
def test_old_rows(kind: str) -> None:
    policy = GatesParams.model_validate({"old_rows": kind})
    verdict = ask(comparison(), policy, of=card(rows={"bolt": "moved"}))
    assert of(verdict, "rows", "rows") == ("failed" if kind == "identical" else "skipped")
    assert ("bolt" in " ".join(verdict.reasons("failed", "skipped"))) and verdict.outcome != "unclear"


def test_a_class_may_not_get_lost_and_may_come() -> None:
    assert of(ask(comparison(), of=card(novel=())), "classes", "classes") == "failed"
    assert of(ask(comparison(), of=card(novel=("hook", "wing"))), "classes", "classes") == "passed"


@pytest.mark.parametrize(
    ("scored", "says"),
    [
        (None, "could not be scored on the validation images: the images are gone"),
        (evaluation(dataset="other"), "was scored on images"),
        (evaluation(bolt=50.02), "bolt came out otherwise"),
        (evaluation(bolt=None), "bolt came out otherwise"),
        (evaluation(novel=()), "hook came out otherwise"),
    ],
)
def test_only_the_registered_result_on_the_same_images_counts(scored: Evaluation | None, says: str) -> None:
    verdict = ask(comparison(), scored=scored, why_not="the images are gone")
    assert of(verdict, "images", "evaluation") == "failed"
    assert says in " ".join(verdict.reasons("failed"))


def test_a_score_may_move_by_a_hundredth_between_machines() -> None:
    assert ask(comparison(), scored=evaluation(bolt=50.009)).outcome == "passed"


def test_the_live_version_must_have_been_scored_on_the_same_images() -> None:
    elsewhere = status("demo-classifier/1", scored=evaluation(dataset="other"))
    for champion in (elsewhere, status("demo-classifier/1", scored=None)):
        verdict = evaluate_gates(GatesParams(), status(), champion, comparison())
        assert of(verdict, "images", "evaluation") == "failed"
    older = status("demo-classifier/1", registered=evaluation(ap=10.0, dataset="other"))
    assert evaluate_gates(GatesParams(), status(), older, comparison()).outcome == "passed"  # it was scored again


def test_the_digest_covers_policy_cards_and_reasons_but_no_noise_of_floats() -> None:
    plain = ask(comparison(base=change(0.1, -0.3, 0.1)))
    assert plain.digest == ask(comparison(base=change(0.1 + 1e-12, -0.3, 0.1))).digest
    others = [
        ask(comparison(base=change(0.2, -0.3, 0.1))),
        ask(comparison(base=change(0.1, -0.3, 0.1)), GatesParams(seed=1)),
        ask(comparison(base=change(0.1, -0.3, 0.1)), of=card(novel=("hook", "wing"))),
    ]
    assert len({plain.digest, *(v.digest for v in others)}) == 4


points = st.floats(0.0, 100.0)


@given(points, points, st.floats(-5.0, 5.0), st.floats(0.0, 5.0), points)
def test_no_number_turns_a_sure_drop_beyond_the_limit_into_a_pass(
    before: float, after: float, middle: float, width: float, limit: float
) -> None:
    policy = GatesParams.model_validate({"max_drop": {"base": limit}})
    found = Change(before=before, after=after, low=middle - width, high=middle + width, instances=30)
    outcome = of(ask(comparison(base=found), policy), "drop", "base")
    beyond = before - after > limit
    sure = middle + width < 0.0 or middle - width > 0.0
    assert outcome == ("passed" if not beyond else "failed" if sure else "unclear")
