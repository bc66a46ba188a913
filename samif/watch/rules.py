"""Alarms in words, and the actions that they recommend: a re-evaluation, a session, a partial retraining. Nothing is
done automatically."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from samif.config.watch import WatchParams
from samif.inference.segment import UNKNOWN
from samif.watch.charts import EMBEDDING, UNCERTAINTY, Reading
from samif.watch.observe import BACKGROUND, CLASS_PREFIX, MARGIN, OBJECTS, OUT_OF_DISTRIBUTION

REPLAY = "replay"
"""Subject of the alarm that the live version gives other results than at registration."""

Action = Literal["re-evaluation", "new session", "partial retraining"]


@dataclass(frozen=True)
class Recommendation:
    """An action for a person, and the reason."""

    action: Action
    reason: str


@dataclass(frozen=True)
class WatchStatus:
    """The state of the live version.

    Attributes:
        alarms: subject and side of each active alarm.
        base: number of classes of the base classifier, and `novel` of those that were added later.
        forgetting: points of AP50 that base classes have lost since the base classifier; none where that is not known.
    """

    alarms: Set[tuple[str, str]]
    base: int
    novel: int
    forgetting: float | None


def describe(reading: Reading) -> str:
    """An alarm in one sentence: the level, the reference level and the control limit that was exceeded."""
    limit = reading.high if reading.side == "high" else reading.low
    assert limit is not None  # a side is only alarmed where it has a limit
    bound = "at most" if reading.side == "high" else "at least"
    name = reading.name
    if name in (EMBEDDING, UNCERTAINTY):
        what = (
            "the image embeddings have shifted"
            if name == EMBEDDING
            else "uncertain objects resemble other classes than in the reference, as where a new part appears"
        )
        return f"{what}: {reading.level:.1f} standard errors from the reference, {bound} {limit:.1f} is expected"
    if name == BACKGROUND:
        level, normal, edge = (f"{100 * value:.0f} %" for value in (reading.level, reading.expected, limit))
    else:
        level, normal, edge = (f"{value:.2f}" for value in (reading.level, reading.expected, limit))
    reference = f"the reference mean is {normal}, {bound} {edge} is expected"
    if name == BACKGROUND:
        return f"{level} of the proposals are background; {reference}"
    if name == OUT_OF_DISTRIBUTION:
        return f"{level} objects per image are out of distribution for their class; {reference}"
    if name == MARGIN:
        return f"classes are less certain: the best class leads the runner-up by {level}; {reference}"
    if name == UNKNOWN:
        return f"{level} objects per image have no known class; {reference}"
    what = "objects" if name == OBJECTS else f"objects of class '{name.removeprefix(CLASS_PREFIX)}'"
    return f"{level} {what} are found per image; {reference}"


def recommend(status: WatchStatus, params: WatchParams) -> list[Recommendation]:
    """The actions that a person should take, most urgent first."""
    subjects = {subject for subject, _ in status.alarms}
    found: list[Recommendation] = []
    if REPLAY in subjects:
        found.append(
            Recommendation(
                "re-evaluation",
                "the live version gives other results on the validation images than at registration; run 'samif "
                "registry verify', repair what it names, and evaluate again before using the results",
            )
        )
    novelty = sorted(subjects & {UNKNOWN, OUT_OF_DISTRIBUTION, UNCERTAINTY})
    if novelty:
        found.append(
            Recommendation(
                "new session",
                f"more objects fit no known class ({', '.join(novelty)}); check recent images, and add a session for a "
                "new part ('samif session add')",
            )
        )
    shifted = sorted(subjects - {REPLAY, *novelty})
    if shifted:
        found.append(
            Recommendation(
                "re-evaluation",
                f"the stream differs from the validated images ({', '.join(shifted)}); label some recent images, add "
                "them to the validation images and run again: the registered scores do not hold for such images",
            )
        )
    if EMBEDDING in subjects and (MARGIN, "low") in status.alarms:
        found.append(
            Recommendation(
                "partial retraining",
                "the images have changed and classes are less certain, so the frozen base no longer fits the camera; "
                "add labelled recent images to the training images and train the base classifier again ('samif run')",
            )
        )
    share = status.novel / max(1, status.base + status.novel)
    if share > params.max_novel_share:
        found.append(
            Recommendation(
                "partial retraining",
                f"{status.novel} of {status.base + status.novel} classes were added after the base classifier, more "
                f"than the {params.max_novel_share:.0%} allowed; make the oldest of them base classes and train again",
            )
        )
    if status.forgetting is not None and status.forgetting > params.max_forgetting:
        found.append(
            Recommendation(
                "partial retraining",
                f"base classes have lost {status.forgetting:.1f} points of AP50 since the base classifier, more than "
                f"the {params.max_forgetting:.1f} allowed; train the base classifier again with the later classes",
            )
        )
    return found
