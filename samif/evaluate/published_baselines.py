"""What others have published, to be printed beside a run: never in one table with numbers of another protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from samif.config import Params
from samif.dataset import coco2014

Protocol = Literal["coco2014-60-20", "coco-novel-only"]
"""`coco2014-60-20`: 60 base classes, 20 novel ones added, all 80 told apart on the 5,000 images of minival.
`coco-novel-only`: the same images, but only the 20 novel classes are known and looked for, which is easier."""


@dataclass(frozen=True)
class Published:
    """One published row: COCO segm AP in points (0-100) after learning the novel classes from `shots` each.

    `base_ap` is None where the protocol has no base classes.
    """

    name: str
    protocol: Protocol
    shots: int
    base_ap: float | None
    novel_ap: float
    source: str


@dataclass(frozen=True)
class Beside:
    """Rows that may stand in a run's own table, and rows of other data that a printer must set apart."""

    comparable: list[Published]
    published_other_data: list[Published]


_IMTFA = "Ganea et al., Incremental Few-Shot Instance Segmentation, CVPR 2021"
_IFS_RCNN = "Nguyen and Todorovic, iFS-RCNN: An Incremental Few-shot Instance Segmenter, CVPR 2022"
_REFT = "Han et al., Reference Twice: A Simple and Unified Baseline for Few-Shot Instance Segmentation, 2023"
_NO_TIME = "Espinosa et al., No time to train! Training-Free Reference-Based Instance Segmentation, 2025"

_Shots = Mapping[int, tuple[float | None, float]]
_TABLE: tuple[tuple[str, Protocol, str, _Shots], ...] = (
    ("iMTFA", "coco2014-60-20", _IMTFA, {1: (25.90, 2.81), 5: (22.56, 5.19), 10: (21.87, 5.88)}),
    ("iFS-RCNN", "coco2014-60-20", _IFS_RCNN, {1: (36.4, 4.0), 5: (36.3, 8.8), 10: (36.3, 10.1)}),
    ("RefT-cos", "coco2014-60-20", _REFT, {1: (37.0, 3.1), 5: (35.3, 8.8), 10: (35.2, 11.1)}),
    ("No time to train", "coco-novel-only", _NO_TIME, {1: (None, 22.9), 5: (None, 32.1), 10: (None, 33.4)}),
)


def published(protocol: Protocol) -> list[Published]:
    """Every published row of one protocol, by method in the order of their years, then by shots."""
    return [
        Published(name, of, shots, base, novel, source)
        for name, of, source, rows in _TABLE
        if of == protocol
        for shots, (base, novel) in rows.items()
    ]


def protocol_of(params: Params) -> Protocol | None:
    """The protocol that a workspace follows to the letter; None for other data or classes, or a part of the data.

    Nor where the decoder was fine-tuned on novel classes too, or shots come from images of a session's own. That the
    data are those that `dataset.protocol` claims is checked by the dataset stage. No workspace follows
    `coco-novel-only`, as each has base classes.
    """
    if params.dataset.protocol != coco2014.PROTOCOL:
        return None
    if params.pretrain_decoder.classes != "base" or any(session.source for session in params.sessions.values()):
        return None
    sessions = [session.classes for session in params.sessions.values()]
    return None if coco2014.class_deviations(params.dataset.base_classes, sessions) else "coco2014-60-20"


def beside(protocol: Protocol | None) -> Beside:
    """The published rows as a run may show them.

    Args:
        protocol: of the run itself, by `protocol_of`; None means that nothing is comparable.
    """
    rows = {of: published(of) for of in dict.fromkeys(of for _, of, _, _ in _TABLE)}
    comparable = rows.pop(protocol) if protocol is not None else []
    return Beside(comparable, [row for others in rows.values() for row in others])
