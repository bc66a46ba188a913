"""May a version go live? Two evaluations and a policy -> a verdict with reasons; a pure function.

A check has passed, has failed, is unclear (a drop beyond its limit that could be noise, or too few objects to judge a
group by) or was skipped (nothing to judge). One failed check fails the verdict; else one unclear check leaves it to a
named person. Reasons carry numbers rounded to hundredths, so that a verdict made again on another machine is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from samif.config import GatesParams, digest
from samif.evaluate.model import Evaluation
from samif.versions import score_checks
from samif.versions.card import Card
from samif.versions.compare import Comparison
from samif.versions.verdict import Check, Verdict

SAME_POINTS = 0.01
"""Points by which a score may move between machines when a version is scored again."""


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
        checks += [_classes(candidate, champion), *score_checks.drops(policy, comparison)]
    checks += [
        *score_checks.floors(policy, candidate.registered),
        score_checks.false_positives_floor(policy, candidate.registered),
    ]
    checks += [score_checks.false_names_floor(policy, candidate.registered)]
    if champion is not None:
        checks += [score_checks.false_positives_rise(policy, comparison), *score_checks.names(policy, comparison)]
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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
