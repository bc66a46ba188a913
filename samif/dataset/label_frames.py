"""The frame that the labels of an image refer to: its upright pixels, or those in the file before EXIF turns them.

Images are read upright everywhere. Labels that were drawn on the stored pixels are turned when they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pycocotools import mask as coco_mask

from samif.dataset.coco_images import Entries, Entry, size_of
from samif.dataset.findings import NOTHING_TO_DO, Findings
from samif.dataset.images import ImageFacts
from samif.dataset.model import Annotation
from samif.dataset.orientation import UPRIGHT, turn_mask
from samif.dataset.segmentation import OVERSHOOT, reach
from samif.dataset.values import get
from samif.masks.rle import decode, encode

Size = tuple[int, int]
Side = Literal["upright", "stored"]
Reaches = dict[int, tuple[float, float]]

_NAMES: dict[Side, str] = {"upright": "the upright images", "stored": "the pixels as they are stored"}
_OTHER: dict[Side, Side] = {"upright": "stored", "stored": "upright"}


@dataclass(frozen=True, slots=True)
class Frame:
    """What the labels of an image refer to.

    Attributes:
        size: (width, height) in pixels; None where it is unknown, because the image cannot be used.
        upright: size of the upright image.
        orientation: EXIF orientation by which the labels are still to be turned.
    """

    size: Size | None
    upright: Size | None
    orientation: int = UPRIGHT


def reaches(records: Iterable[Any], entries: Entries, ids: set[int]) -> Reaches:
    """Largest x and y of all outlines of each of these images."""
    found: Reaches = {}
    for record in records:
        entry = entries.of(get(record, "image_id"))
        if entry is not None and entry.id in ids:
            x, y = found.get(entry.id, (0.0, 0.0))
            right, low = reach(get(record, "segmentation"))
            found[entry.id] = max(x, right), max(y, low)
    return found


def misfits(records: Iterable[Any], entries: Entries) -> set[int]:
    """Images whose outlines do not fit the size that the file gives, as where an EXIF tag turns them."""
    declared = {entry.id: entry.declared for entry in entries.all if entry.declared is not None}
    found = reaches(records, entries, set(declared))
    return {id_ for id_, reached in found.items() if _exceeds(reached, declared[id_])}


def label_frames(
    entries: Entries,
    facts: Mapping[int, ImageFacts],
    records: Iterable[Any],
    rule: Literal["auto", "upright", "stored"],
    findings: Findings,
) -> dict[int, Frame]:
    """The frame of every image.

    One labelling tool shows all images alike. So where `rule` is `auto`, images whose sizes tell decide for those whose
    sizes do not: mirrored ones, half turns and squares. The size of an image tells if the file declares the upright
    size, or if outlines fit only one of the two frames.
    """
    turned = {entry.id: entry for entry in entries.all if entry.id in facts and facts[entry.id].orientation != UPRIGHT}
    reached = reaches(records, entries, set(turned)) if turned and rule == "auto" else {}
    told = {id_: _told(entry, facts[id_], reached.get(id_, (0.0, 0.0))) for id_, entry in turned.items()}
    votes = Counter(side for side in told.values() if side is not None)
    common: Side = "stored" if rule == "stored" or (rule == "auto" and set(votes) == {"stored"}) else "upright"
    frames, asked = {}, False
    known: dict[Frame, Frame] = {}  # most images share one
    for entry in entries.all:
        fact = facts.get(entry.id)
        side = told[entry.id] if entry.id in turned and rule == "auto" and len(votes) > 1 else None
        unclear = rule == "auto" and len(votes) != 1 and side is None
        ask = unclear and entry.id in reached and fact is not None and entry.declared == fact.stored_size != fact.size
        asked = asked or ask
        frame = _frame(entry, fact, side or common, ask, findings)
        frames[entry.id] = known.setdefault(frame, frame)
    if turned and not asked:
        _say(list(turned.values()), rule, common, votes, findings)
    return frames


def _told(entry: Entry, facts: ImageFacts, reached: tuple[float, float]) -> Side | None:
    """On which frame the labels of an image were drawn, by sizes alone; None if they do not tell."""
    if facts.size == facts.stored_size or entry.declared not in (None, facts.size, facts.stored_size):
        return None
    if entry.declared == facts.size:
        return "upright"
    if _exceeds(reached, facts.stored_size) and not _exceeds(reached, facts.size):
        return "upright"
    if _exceeds(reached, facts.size) and not _exceeds(reached, facts.stored_size):
        return "stored"
    return None


def _exceeds(reached: tuple[float, float], size: Size) -> bool:
    return reached[0] > size[0] + OVERSHOOT or reached[1] > size[1] + OVERSHOOT


def _frame(entry: Entry, facts: ImageFacts | None, side: Side, ask: bool, findings: Findings) -> Frame:
    if facts is None or entry.declared not in (None, facts.size, facts.stored_size):
        size = size_of(entry, facts, findings)
        return Frame(size, size)
    if entry.declared is None or ask:
        size_of(entry, facts, findings)
    if side == "stored":
        return Frame(facts.stored_size, facts.size, facts.orientation)
    return Frame(facts.size, facts.size)


def _say(turned: list[Entry], rule: str, common: Side, votes: Counter[Side], findings: Findings) -> None:
    """One warning per file with images that a tag turns or mirrors."""
    some = f"an EXIF tag turns or mirrors {len(turned)} images, such as {turned[0].file_name}"
    taken = f"their labels are taken as drawn on {_NAMES[common]}"
    choice = f"set dataset.labels_on to {_OTHER[common]} in params.yaml if they were drawn on {_NAMES[_OTHER[common]]}"
    if rule != "auto":
        text, remedy = f"{some}; {taken}, as dataset.labels_on says", NOTHING_TO_DO
    elif len(votes) == 1:
        text, remedy = f"{some}; {taken}, as the sizes of {votes[common]} of them tell", choice
    elif votes:
        text = (
            f"{some}; the sizes tell for {votes['upright']} that the labels were drawn on {_NAMES['upright']} and for "
            f"{votes['stored']} on {_NAMES['stored']}; for the others {_NAMES['upright']} are taken"
        )
        remedy = "look at some of them, and set dataset.labels_on in params.yaml if all are alike"
    else:
        text, remedy = f"{some}; their sizes do not tell on which pixels the labels were drawn, and {taken}", choice
    findings.add(text, remedy, level="warning")


def turned_upright(annotation: Annotation, frame: Frame) -> Annotation:
    """The annotation in the upright frame of its image."""
    if frame.orientation == UPRIGHT:
        return annotation
    rle = encode(turn_mask(decode([annotation.rle])[0], frame.orientation)[None])[0]
    x, y, width, height = coco_mask.toBbox(rle).tolist()
    return replace(annotation, rle=rle, bbox=(x, y, width, height))
