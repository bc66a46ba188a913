"""What an alarm means in plain words, and what is due: a re-evaluation, a session, a partial retraining. Nothing more
than advice follows from it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

from samif.config.watch import WatchParams
from samif.inference.segment import UNKNOWN
from samif.watch.charts import DOUBT, EMBEDDING, Reading
from samif.watch.observe import BACKGROUND, CLASS_PREFIX, MARGIN, OBJECTS, STRANGE

REPLAY = "replay"
"""Subject of the alarm that the live version is no longer what it was."""

What = Literal["re-evaluation", "new session", "partial retraining"]


@dataclass(frozen=True)
class Due:
    """Something that a person should see to, and why."""

    what: What
    why: str


@dataclass(frozen=True)
class Standing:
    """What is known of the live version.

    Attributes:
        alarms: subject and side of each alarm that holds.
        base: classes of the base classifier, and `novel` ones that came later.
        forgotten: points of AP50 that base classes have lost since the base classifier; none where that is not known.
    """

    alarms: Set[tuple[str, str]]
    base: int
    novel: int
    forgotten: float | None


def sentence(reading: Reading) -> str:
    """An alarm in plain words: what is seen, what is usual, where the limit lies."""
    high = reading.side == "high"
    limit = reading.high if high else reading.low
    assert limit is not None  # it was passed
    word = "at most" if high else "at least"
    usual = f"{{normal}} is usual, {word} {{limit}} is expected by chance"
    name = reading.name
    if name == EMBEDDING:
        return (
            f"the images look different: they lie {reading.level:.1f} standard errors from the reference images, "
            f"at most {limit:.1f} is expected by chance"
        )
    if name == DOUBT:
        return (
            "objects of which the version is unsure are like other classes than usual, as where a new part has come: "
            f"they lie {reading.level:.1f} standard errors from the reference images, at most {limit:.1f} is "
            "expected by chance"
        )
    if name == BACKGROUND:
        level, normal, edge = (f"{100 * value:.0f} %" for value in (reading.level, reading.normal, limit))
        return f"{level} of what is cut out is background; {usual.format(normal=normal, limit=edge)}"
    level, normal, edge = (f"{value:.2f}" for value in (reading.level, reading.normal, limit))
    if name == STRANGE:
        return (
            f"{level} objects per image get a name and look unlike others of that name; {normal} is usual, at most "
            f"{edge} is expected by chance"
        )
    tail = usual.format(normal=normal, limit=edge)
    if name == MARGIN:
        return f"names are less sure: the best class is only {level} ahead of the runner-up; {tail}"
    if name == UNKNOWN:
        return f"{level} objects per image bear no known name; {tail}"
    what = "objects" if name == OBJECTS else f"'{name.removeprefix(CLASS_PREFIX)}'"
    return f"{level} {what} are found per image; {tail}"


def due(standing: Standing, params: WatchParams) -> list[Due]:
    """What a person should see to now, most urgent first."""
    subjects = {subject for subject, _ in standing.alarms}
    found: list[Due] = []
    if REPLAY in subjects:
        found.append(
            Due(
                "re-evaluation",
                "the live version does not come out on the frozen images as it did when it was registered; run "
                "'samif registry verify', mend what it names, and evaluate again before its answers are trusted",
            )
        )
    strangers = sorted(subjects & {UNKNOWN, STRANGE, DOUBT})
    if strangers:
        found.append(
            Due(
                "new session",
                f"there are more objects that fit no known class ({', '.join(strangers)}); look at recent images, "
                "and add a session for a new part ('samif session add')",
            )
        )
    moved = sorted(subjects - {REPLAY, *strangers})
    if moved:
        found.append(
            Due(
                "re-evaluation",
                f"the stream has left what was validated ({', '.join(moved)}); label some recent images, add them to "
                "the validation images and run again: the registered scores say nothing about images like these",
            )
        )
    if EMBEDDING in subjects and (MARGIN, "low") in standing.alarms:
        found.append(
            Due(
                "partial retraining",
                "the images look different and names have become less sure, so the frozen base no longer fits what "
                "the camera sees; add labelled recent images to the training images and train the base classifier "
                "again ('samif run')",
            )
        )
    share = standing.novel / max(1, standing.base + standing.novel)
    if share > params.max_novel_share:
        found.append(
            Due(
                "partial retraining",
                f"{standing.novel} of {standing.base + standing.novel} classes came after the base classifier, more "
                f"than the {params.max_novel_share:.0%} allowed; make the oldest of them base classes and train again",
            )
        )
    if standing.forgotten is not None and standing.forgotten > params.max_forgetting:
        found.append(
            Due(
                "partial retraining",
                f"base classes have lost {standing.forgotten:.1f} points of AP50 since the base classifier, more than "
                f"the {params.max_forgetting:.1f} allowed; train the base classifier again with what came later",
            )
        )
    return found
