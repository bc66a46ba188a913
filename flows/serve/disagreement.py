"""Where two heads name the objects of one image differently."""

from __future__ import annotations

from dataclasses import dataclass

from flows.artifacts.disagreements import Kind
from samif.inference.segment import Instances
from samif.masks.rle import overlaps

SAME_IOU = 0.5
"""Overlap from which two masks are one object."""


@dataclass(frozen=True)
class Disagreement:
    """One object, its box (x, y, width, height) in pixels, and what each head calls it; none where it finds nothing."""

    kind: Kind
    box: tuple[float, float, float, float]
    champion: str | None
    challenger: str | None


def disagreements(champion: Instances, challenger: Instances) -> list[Disagreement]:
    """Objects that two answers to one image name differently, or that only one of them has.

    Masks are paired best overlap first, from an IoU of a half.
    """
    iou = overlaps(champion.masks, challenger.masks)
    matched: dict[int, int] = {}
    for flat in (-iou).argsort(axis=None, kind="stable"):
        row, column = divmod(int(flat), iou.shape[1])
        if iou[row, column] < SAME_IOU:
            break
        if row not in matched and column not in matched.values():
            matched[row] = column
    found = []
    for row in range(len(champion)):
        name = champion.labels[row]
        if row not in matched:
            found.append(Disagreement("only_champion", _box(champion, row), name, None))
        elif (other := challenger.labels[matched[row]]) != name:
            found.append(Disagreement("renamed", _box(champion, row), name, other))
    alone = set(range(len(challenger))) - set(matched.values())
    found += [
        Disagreement("only_challenger", _box(challenger, row), None, challenger.labels[row]) for row in sorted(alone)
    ]
    return found


def _box(instances: Instances, row: int) -> tuple[float, float, float, float]:
    x, y, width, height = (float(v) for v in instances.boxes[row])
    return x, y, width, height
