"""Checks of the gates on scores: floors, drops against the live version, false positives and names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from samif.config import GatesParams, Limits
from samif.evaluate.model import Evaluation
from samif.versions.compare import GROUPS, Change, Comparison
from samif.versions.verdict import Check, Outcome


def floors(policy: GatesParams, evaluation: Evaluation) -> Iterator[Check]:
    metric = policy.metric
    scores = getattr(evaluation, metric)
    instances = {name: score.instances for name, score in evaluation.per_class.items()}
    for group in GROUPS:
        if (floor := getattr(policy.floors, group)) is not None:
            members = [n for n, score in evaluation.per_class.items() if group in ("all", score.group)]
            few = sum(instances[n] for n in members) < policy.min_instances
            yield _floor(policy, group, getattr(scores, group), floor, few, outcome_if_few="unclear")
    unknown = [name for name in policy.floors.classes if name not in evaluation.per_class]
    for name in unknown:
        if policy.floors.classes[name] is not None:
            yield Check(name="floor", subject=name, outcome="failed", reason=f"{name}: the version does not know it")
    for name, score in evaluation.per_class.items():
        if (floor := _limit(policy.floors, name)) is not None:
            few = score.instances < policy.min_instances
            yield _floor(policy, name, getattr(score, metric), floor, few, outcome_if_few="skipped")


def _floor(
    policy: GatesParams,
    subject: str,
    value: float | None,
    floor: float,
    few: bool,
    outcome_if_few: Literal["unclear", "skipped"],
) -> Check:
    what = f"{subject}: {_name(policy)}"
    if value is None:
        return Check(name="floor", subject=subject, outcome="failed", reason=f"{what} was not measured")
    says = f"{what} {value:.2f}, at least {floor:.2f} is required"
    if few:
        reason = f"{says}; fewer than {policy.min_instances} objects are too few"
        return Check(name="floor", subject=subject, outcome=outcome_if_few, reason=reason)
    return Check(name="floor", subject=subject, outcome="passed" if value >= floor else "failed", reason=says)


def drops(policy: GatesParams, comparison: Comparison | None) -> Iterator[Check]:
    if comparison is None:
        reason = "the change against the live version was not measured"
        yield Check(name="drop", subject="all", outcome="failed", reason=reason)
        return
    for group in GROUPS:
        if (limit := getattr(policy.max_drop, group)) is not None:
            change = comparison.groups[group]
            if group == "novel" and change.before is None and not change.instances:
                reason = "novel: the live version knows no novel class, so none can have dropped"
                yield Check(name="drop", subject=group, outcome="skipped", reason=reason)
            else:
                yield _drop(policy, group, change, limit, outcome_if_few="unclear")
    for name, change in comparison.classes.items():
        if (limit := _limit(policy.max_drop, name)) is not None:
            yield _drop(policy, name, change, limit, outcome_if_few="skipped")


def _drop(
    policy: GatesParams,
    subject: str,
    change: Change,
    limit: float,
    outcome_if_few: Literal["unclear", "skipped"],
) -> Check:
    def check(outcome: Literal["passed", "unclear", "failed", "skipped"], reason: str) -> Check:
        return Check(name="drop", subject=subject, outcome=outcome, reason=f"{subject}: {reason}")

    if change.instances < policy.min_instances and (change.instances or outcome_if_few == "skipped"):
        reason = f"{change.instances} objects are too few to judge by (fewer than {policy.min_instances})"
        return check(outcome_if_few, reason)
    if change.change is None:
        return check("failed", f"{_name(policy)} was not measured for both versions")
    drop = -change.change
    way = "fell" if drop > 0 else "went"
    says = f"{_name(policy)} {way} from {change.before:.2f} to {change.after:.2f}"
    interval = "" if change.low is None else f" (interval {change.low:+.2f} to {change.high:+.2f})".replace("-", "−")
    if drop <= limit:
        return check("passed", f"{says}{interval}")
    if change.is_noise:
        return check("unclear", f"{says}, more than the {limit:.2f} allowed, but that is inside the noise{interval}")
    return check("failed", f"{says}, at most {limit:.2f} less is allowed{interval}")


def false_positives_floor(policy: GatesParams, evaluation: Evaluation) -> Check:
    def check(outcome: Outcome | Literal["skipped"], reason: str) -> Check:
        return Check(name="false positives", subject="number", outcome=outcome, reason=reason)

    value, limit = evaluation.unknown.unlabelled_false_positives_per_image, policy.max_unlabelled_false_positives
    if limit is None:
        return check("skipped", "no limit on false positives on unlabelled objects is set")
    if value is None:
        return check("failed", "false positives on unlabelled objects were not measured")
    reason = f"{value:.2f} false positives on unlabelled objects per image, at most {limit:.2f} are allowed"
    return check("passed" if value <= limit else "failed", reason)


def false_positives_rise(policy: GatesParams, comparison: Comparison | None) -> Check:
    def check(outcome: Outcome | Literal["skipped"], reason: str) -> Check:
        return Check(name="false positives", subject="rise", outcome=outcome, reason=reason)

    limit = policy.max_unlabelled_false_positives_rise
    if limit is None:
        return check("skipped", "no limit on a rise of false positives on unlabelled objects is set")
    change = comparison.unlabelled_false_positives if comparison else None
    if change is None or change.change is None:
        return check("failed", "false positives on unlabelled objects were not measured for both versions")
    way = "rose" if change.change > 0 else "went"
    says = f"false positives on unlabelled objects per image {way} from {change.before:.2f} to {change.after:.2f}"
    if change.change <= limit:
        return check("passed", says)
    if change.is_noise:
        return check("unclear", f"{says}, more than the {limit:.2f} allowed, but that is inside the noise")
    return check("failed", f"{says}, at most {limit:.2f} more is allowed")


def false_names_floor(policy: GatesParams, evaluation: Evaluation) -> Check:
    def check(outcome: Outcome | Literal["skipped"], reason: str) -> Check:
        return Check(name="names", subject="false names", outcome=outcome, reason=reason)

    limit = policy.max_false_names
    if limit is None:
        return check("skipped", "no limit on false names is set")
    if evaluation.naming is None:
        return check("failed", "false names were not measured")
    rate = evaluation.naming.rates.false_names
    says = f"{rate.value:.0f} false names per 1,000 images (interval {rate.low:.0f} to {rate.high:.0f})"
    if rate.value <= limit:
        return check("passed", f"{says}, at most {limit:.0f} are allowed")
    if rate.low <= limit:
        return check("unclear", f"{says}, more than the {limit:.0f} allowed, but that is inside the noise")
    return check("failed", f"{says}, at most {limit:.0f} are allowed")


def names(policy: GatesParams, comparison: Comparison | None) -> Iterator[Check]:
    """Rightly named objects may drop, and false names rise, by so much."""
    named, false_names = (comparison.named, comparison.false_names) if comparison else (None, None)
    yield _worsening(
        "named objects",
        "points of the named objects",
        policy.max_named_drop,
        named,
        -1,
    )
    yield _worsening(
        "false names rise", "false names per 1,000 images", policy.max_false_names_rise,
        false_names, 1,
    )  # fmt: skip


def _worsening(subject: str, what: str, limit: float | None, change: Change | None, sign: int) -> Check:
    """`sign` is 1 where more is worse, -1 where less is."""

    def check(outcome: Outcome | Literal["skipped"], reason: str) -> Check:
        return Check(name="names", subject=subject, outcome=outcome, reason=reason)

    if limit is None:
        return check("skipped", f"no limit on a change of the {what} is set")
    if change is None or change.change is None:
        return check("skipped", f"the {what} were not measured for both versions")
    says = f"{what} went from {change.before:.1f} to {change.after:.1f}"
    if sign * change.change <= limit:
        return check("passed", says)
    if change.is_noise:
        return check("unclear", f"{says}, a change beyond the {limit:.1f} allowed, but that is inside the noise")
    return check("failed", f"{says}, a change of at most {limit:.1f} for the worse is allowed")


def _limit(limits: Limits, name: str) -> float | None:
    return limits.classes.get(name, limits.each_class)


def _name(policy: GatesParams) -> str:
    return policy.metric.upper()
