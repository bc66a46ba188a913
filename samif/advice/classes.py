"""The verdict of a class: whether its images are enough and varied, and which to take next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from samif.advice.shots_curve import ShotsCurve
from samif.advice.traits import Traits, largest_window

Verdict = Literal["ready", "usable", "not yet"]

USABLE_IMAGES = 5
"""Different images from which a class is usable. The share of objects that a class mean names rightly is 84.7, 87.5 and
88.3 % at 1, 5 and 10 images on tote_dev, 91.3, 95.4 and 96.9 % on the demo line: from five on the mean hardly rises."""
READY_IMAGES = 10
"""Different images from which a class may be ready. What still rises from 5 to 10 are the worst classes: the lowest
tenth from 65.8 to 71.9 % on tote_dev, from 84.7 to 92.0 % on the demo line."""
MIN_VARIED = 5
"""Objects from which their variety is judged."""
POSE_HALF_WIDTH = 15.0
"""Degrees on either side of a direction that count as one pose."""
ONE_POSE = 0.8
"""Share of the long objects in one pose above which they are said to be. It is 0.62 at most for any class of tote_dev,
microcontrollers, nuts and the demo line; of five objects in random directions all five are so in 0.4 % of cases."""
ONE_LIGHT = 0.04
"""Standard deviation of the logarithm of the objects' brightness below which they were taken under one light. It is
0.083 at least for any class of those data sets, on tote_dev under a fixed camera and lamp."""
ONE_BACKGROUND = 10.0
"""Standard deviation of the surround's colour, 0..255, below which the background is one. It is 22.6 at least on
tote_dev, where the background is one grey tote with other parts in it, and 56 at least on the other data sets."""
ONE_SIZE = 0.03
"""Standard deviation of the logarithm of the objects' sizes below which they were taken from one distance. It is 0.088
at least for any class of those data sets."""
MOSTLY_CUT = 0.5
"""Share of objects that the border cuts above which whole ones are asked for; 0.43 at most on those data sets."""
MOSTLY_TOUCHED = 0.9
"""Share of objects that others touch above which some alone are asked for; 0.85 at most on those data sets."""
BADLY_NAMED = 0.7
"""Share of rightly named objects below which a class is usable at most. It is 0.76 at least on those data sets."""


@dataclass(frozen=True)
class Spread:
    """Quantiles 0.1, 0.5 and 0.9 of a trait."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(*(float(q) for q in np.quantile(values, (0.1, 0.5, 0.9)))) if len(values) else None


@dataclass(frozen=True)
class Variety:
    """How different the labelled objects of a class are; None where there are none, or too few to say.

    Attributes:
        size: root of the mask's area over that of the image.
        directed, one_pose: objects that are clearly longer than wide, and how many of them lie in one direction.
        brightness: of the objects, 0..255.
        light: standard deviation of the logarithm of it.
        background: standard deviation of the colour around the objects, 0..255.
        cut, touching: share of objects that the border cuts, or that others touch.
    """

    size: Spread | None
    size_spread: float | None
    directed: int
    one_pose: int
    brightness: Spread | None
    light: float | None
    background: float | None
    cut: float
    touching: float


@dataclass(frozen=True)
class Naming:
    """What the features say of a class: the share of rightly named objects, the classes that it is taken for, labels
    with a doubtful name or mask, and the curve over shots."""

    right: float | None
    look_alikes: tuple[str, ...]
    wrong_names: int
    bad_masks: int
    curve: ShotsCurve | None


@dataclass(frozen=True)
class ClassAdvice:
    """A class.

    `distinct_images` counts near-duplicates once, and where there are features also objects that are one view;
    `reasons` and `next` begin with what matters most; `naming` is None where there are no features.
    """

    name: str
    instances: int
    images: int
    distinct_images: int
    variety: Variety
    naming: Naming | None
    verdict: Verdict
    reasons: tuple[str, ...]
    next: tuple[str, ...]


def variety_of(traits: Sequence[Traits]) -> Variety:
    """The variety of the objects of one class."""
    enough = len(traits) >= MIN_VARIED
    angles = [t.angle for t in traits if t.angle is not None]
    surrounds = np.array([t.surround for t in traits if t.surround is not None])
    logs = np.log([t.brightness + 8.0 for t in traits])  # dark parts: a grey level more or less is noise
    return Variety(
        size=Spread.of([t.size for t in traits]),
        size_spread=float(np.log([t.size for t in traits]).std()) if enough else None,
        directed=len(angles),
        one_pose=largest_window(angles, POSE_HALF_WIDTH)[0] if angles else 0,
        brightness=Spread.of([t.brightness for t in traits]),
        light=float(logs.std()) if enough else None,
        background=float(np.sqrt(surrounds.var(axis=0).sum())) if len(surrounds) >= MIN_VARIED else None,
        cut=float(np.mean([t.cut for t in traits])) if traits else 0.0,
        touching=float(np.mean([t.touching for t in traits])) if traits else 0.0,
    )


def advise_class(
    name: str, instances: int, images: int, distinct_images: int, variety: Variety, naming: Naming | None
) -> ClassAdvice:
    """The verdict of a class with the reasons, and what to do next."""
    lacks = [*_lacking_images(images, distinct_images), *_uniform(variety), *_badly_named(naming)]
    hints = [*_hints(variety, naming)]
    if distinct_images < USABLE_IMAGES:
        verdict: Verdict = "not yet"
    else:
        verdict = "usable" if lacks else "ready"
    told = lacks or [(f"{_count(distinct_images, 'different image')} in varied poses, light and background", "")]
    steps = [step for _, step in (*lacks, *hints) if step]
    return ClassAdvice(
        name, instances, images, distinct_images, variety, naming, verdict, tuple(reason for reason, _ in told),
        tuple(steps),
    )  # fmt: skip


def _lacking_images(images: int, distinct: int) -> list[tuple[str, str]]:
    if distinct >= READY_IMAGES:
        return []
    goal = USABLE_IMAGES if distinct < USABLE_IMAGES else READY_IMAGES
    if distinct < images:
        reason = (
            f"its {_count(images, 'image')} show {_count(distinct, 'different view')}: the rest are near-duplicates"
        )
        remedy = f"move the part or the camera between images; {_count(goal - distinct, 'more different image')}"
    else:
        reason = f"{_count(images, 'image')}" if images else "no image shows it"
        remedy = f"photograph it in {_count(goal - distinct, 'more image')}"
    return [(reason, remedy)]


def _uniform(variety: Variety) -> list[tuple[str, str]]:
    found = []
    if variety.directed >= MIN_VARIED and variety.one_pose > ONE_POSE * variety.directed:
        told = f"{variety.one_pose} of {variety.directed} objects show one pose"
        found.append((told, f"{told}: turn the part"))
    if variety.light is not None and variety.light < ONE_LIGHT:
        found.append(("all objects have one light", "change the light: brighter, darker, from another side"))
    if variety.background is not None and variety.background < ONE_BACKGROUND:
        found.append(("all objects lie on one background", "put the part on other backgrounds or among other parts"))
    return found


def _badly_named(naming: Naming | None) -> list[tuple[str, str]]:
    if naming is None:
        return []
    found = []
    if naming.look_alikes:
        others = ", ".join(naming.look_alikes)
        found.append((f"looks like {others}", f"photograph it beside {others}, from the side where they differ"))
    elif naming.right is not None and naming.right < BADLY_NAMED:
        told = f"{100 * naming.right:.0f} % of its objects are named rightly from the other images"
        found.append((told, "photograph the views that were named wrongly"))
    return found


def _hints(variety: Variety, naming: Naming | None) -> list[tuple[str, str]]:
    """What is worth doing, whatever the verdict."""
    found = []
    doubts = 0 if naming is None else naming.wrong_names + naming.bad_masks
    if doubts:
        found.append(("", f"look at {_count(doubts, 'label')} that may be wrong"))
    if variety.cut > MOSTLY_CUT:
        found.append(("", f"show it whole: the border cuts {100 * variety.cut:.0f} % of its objects"))
    if variety.touching > MOSTLY_TOUCHED:
        found.append(("", f"show it alone too: others touch {100 * variety.touching:.0f} % of its objects"))
    if variety.size_spread is not None and variety.size_spread < ONE_SIZE:
        found.append(("", "all objects have one size: change the distance, if it changes on the line"))
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
