"""May a version go live? Two evaluations and a policy -> a verdict with reasons; a pure function.

A check has passed, has failed, is unclear (a drop beyond its limit that could be noise, or too few objects to judge a
group by) or was skipped (nothing to judge). One failed check fails the verdict; else one unclear check leaves it to a
named person. Reasons carry numbers rounded to hundredths, so that a verdict made again on another machine is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, Field

from samif.config import GatesParams, Limits, Strict, digest
from samif.evaluate.model import Evaluation
from samif.versions.card import Card
from samif.versions.compare import GROUPS, Change, Comparison

Outcome = Literal["passed", "unclear", "failed"]
SAME_POINTS = 0.01
"""Points by which a score may move between machines when a version is scored again."""


class Check(Strict):
    """One question of the policy; `subject` is a group, a class or a part of the version."""

    name: Literal[
        "verified", "lock", "images", "decoder", "rows", "classes", "floor", "drop", "false positives", "names"
    ]
    subject: str
    outcome: Literal["passed", "unclear", "failed", "skipped"]
    reason: str


class Verdict(Strict):
    """The answer for one candidate against one live version (none before the first promotion)."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    candidate: str
    candidate_card: str
    champion: str | None
    champion_card: str | None
    policy: str
    checks: tuple[Check, ...]

    @property
    def outcome(self) -> Outcome:
        found = {check.outcome for check in self.checks}
        return "failed" if "failed" in found else "unclear" if "unclear" in found else "passed"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical content: what an approval is bound to."""
        return digest(self)

    def reasons(self, *outcomes: str) -> list[str]:
        """The reasons of the checks with one of these outcomes."""
        return [check.reason for check in self.checks if check.outcome in outcomes]


@dataclass(frozen=True)
class VersionStatus:
    """What is known of a version.

    Attributes:
        version: such as `demo-classifier/3`.
        registered: the evaluation whose digest is in its card.
        scored: scored again just now on the frozen images; none where they are not at hand.
        why_not: why it could not be scored.
        complaints: what its verification found to differ; empty where everything is as the card says.
        lock: whether a commit holds the dvc.lock that its card names; "ignored" where git was told to leave it out,
            "no git" where the workspace is in no git repository.
    """

    version: str
    card: Card
    registered: Evaluation
    scored: Evaluation | None
    why_not: str = ""
    complaints: tuple[str, ...] = ()
    lock: Literal["committed", "uncommitted", "ignored", "no git"] = "no git"


def evaluate_gates(
    policy: GatesParams, candidate: VersionStatus, champion: VersionStatus | None, comparison: Comparison | None
) -> Verdict:
    """Ask every question of the policy.

    Args:
        candidate: the version that would go live.
        champion: the live version; none before the first promotion, when only floors and the candidate itself count.
        comparison: champion (before) against candidate (after), with the policy's metric; none where there is no
            champion, or where one of them could not be scored.
    """
    checks = [_verified(candidate), _lock(candidate), _images(candidate, champion)]
    if champion is not None:
        checks += [_classes(candidate, champion), *_drops(policy, comparison)]
    checks += [*_floors(policy, candidate.registered), _false_positives_floor(policy, candidate.registered)]
    checks += [_false_names_floor(policy, candidate.registered)]
    if champion is not None:
        checks += [_false_positives_rise(policy, comparison), *_names(policy, comparison)]
        checks += [_decoder(policy, candidate, champion), _rows(policy, candidate, champion)]
    return Verdict(
        candidate=candidate.version,
        candidate_card=candidate.card.digest,
        champion=champion.version if champion else None,
        champion_card=champion.card.digest if champion else None,
        policy=digest(policy),
        checks=tuple(checks),
    )


def _verified(candidate: VersionStatus) -> Check:
    if candidate.complaints:
        return Check(name="verified", subject="card", outcome="failed", reason="; ".join(candidate.complaints))
    return Check(name="verified", subject="card", outcome="passed", reason="every file is what the card says")


def _lock(candidate: VersionStatus) -> Check:
    """What was run for the version must be in git, or a person answers for it."""
    sha256 = candidate.card.provenance.dvc_lock
    outcome: Literal["passed", "unclear", "skipped"] = "skipped"
    if candidate.lock == "no git":
        reason = "the workspace is in no git repository, so no commit can hold the version's dvc.lock"
    elif candidate.lock == "ignored":
        reason = "git ignores dvc.lock in this workspace, so no commit can hold the version's"
    elif candidate.lock == "committed":
        outcome, reason = "passed", "a commit holds the version's dvc.lock"
    elif sha256 is None:
        outcome, reason = "unclear", "the version was registered without a dvc.lock"
    else:
        outcome, reason = "unclear", f"no commit holds the version's dvc.lock ({sha256[:12]}); commit it"
    return Check(name="lock", subject="dvc.lock", outcome=outcome, reason=reason)


def _images(candidate: VersionStatus, champion: VersionStatus | None) -> Check:
    """Both scored just now on the images of the candidate's own evaluation, which must come out as registered."""

    def failed(reason: str) -> Check:
        return Check(name="images", subject="evaluation", outcome="failed", reason=reason)

    frozen, again = candidate.registered, candidate.scored
    if again is None or (champion is not None and champion.scored is None):
        which = candidate if again is None or champion is None else champion
        why = f": {which.why_not}" if which.why_not else ""
        return failed(f"{which.version} could not be scored on the validation images{why}")
    for status in (candidate, *([champion] if champion else [])):
        if status.scored is not None and status.scored.dataset != frozen.dataset:
            return failed(
                f"{status.version} was scored on images {status.scored.dataset[:12]}, "
                f"the candidate's own evaluation on {frozen.dataset[:12]}"
            )
    moved = moved_classes(frozen, again)
    if moved:
        return failed(f"scored again, {', '.join(moved[:5])} came out otherwise than in the registered evaluation")
    against = "both scored again" if champion else "scored again"
    reason = f"{against} on the same {again.images} images, with the registered result"
    return Check(name="images", subject="evaluation", outcome="passed", reason=reason)


def moved_classes(registered: Evaluation, scored: Evaluation) -> list[str]:
    """Classes whose AP in a second scoring is further than SAME_POINTS from the registered one, or undefined there."""
    return [
        name
        for name, score in registered.per_class.items()
        if name not in scored.per_class or _apart(score.ap, scored.per_class[name].ap) > SAME_POINTS
    ]


def _apart(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else 100.0
    return abs(one - other)


def _decoder(policy: GatesParams, candidate: VersionStatus, champion: VersionStatus) -> Check:
    if candidate.card.decoder.sha256 == champion.card.decoder.sha256:
        return Check(name="decoder", subject="decoder", outcome="passed", reason="the same frozen decoder")
    outcome: Literal["failed", "skipped"] = "failed" if policy.same_decoder else "skipped"
    reason = (
        f"another decoder ({candidate.card.decoder.sha256[:12]}) than the live version's "
        f"({champion.card.decoder.sha256[:12]})"
    )
    return Check(name="decoder", subject="decoder", outcome=outcome, reason=reason)


def _rows(policy: GatesParams, candidate: VersionStatus, champion: VersionStatus) -> Check:
    old = [name for name in champion.card.classes if name in candidate.card.rows]
    changed = [name for name in old if candidate.card.rows[name] != champion.card.rows[name]]
    if not changed:
        return Check(name="rows", subject="rows", outcome="passed", reason=f"{len(old)} old rows bit-identical")
    outcome: Literal["failed", "skipped"] = "failed" if policy.old_rows == "identical" else "skipped"
    reason = f"the rows of {_listed(changed)} are not those of the live version"
    return Check(name="rows", subject="rows", outcome=outcome, reason=reason)


def _classes(candidate: VersionStatus, champion: VersionStatus) -> Check:
    lost = [name for name in champion.card.classes if name not in candidate.card.classes]
    if lost:
        reason = f"it no longer knows {_listed(lost)}"
        return Check(name="classes", subject="classes", outcome="failed", reason=reason)
    added = [name for name in candidate.card.classes if name not in champion.card.classes]
    reason = f"it knows every class of the live version{' and adds ' + _listed(added) if added else ''}"
    return Check(name="classes", subject="classes", outcome="passed", reason=reason)


def _floors(policy: GatesParams, evaluation: Evaluation) -> Iterator[Check]:
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


def _drops(policy: GatesParams, comparison: Comparison | None) -> Iterator[Check]:
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


def _false_positives_floor(policy: GatesParams, evaluation: Evaluation) -> Check:
    def check(outcome: Outcome | Literal["skipped"], reason: str) -> Check:
        return Check(name="false positives", subject="number", outcome=outcome, reason=reason)

    value, limit = evaluation.unknown.unlabelled_false_positives_per_image, policy.max_unlabelled_false_positives
    if limit is None:
        return check("skipped", "no limit on false positives on unlabelled objects is set")
    if value is None:
        return check("failed", "false positives on unlabelled objects were not measured")
    reason = f"{value:.2f} false positives on unlabelled objects per image, at most {limit:.2f} are allowed"
    return check("passed" if value <= limit else "failed", reason)


def _false_positives_rise(policy: GatesParams, comparison: Comparison | None) -> Check:
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


def _false_names_floor(policy: GatesParams, evaluation: Evaluation) -> Check:
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


def _names(policy: GatesParams, comparison: Comparison | None) -> Iterator[Check]:
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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
