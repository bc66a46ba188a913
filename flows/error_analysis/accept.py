"""Accepted errors as a session of their own: hard negatives, or shots of a class that was not taught."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from flows.error_analysis.collect import Errors, find_case
from flows.workspace.edit import add_background, add_session
from flows.workspace.layout import Layout
from samif.config import CocoSource, Params, load_params
from samif.config.learning import Name
from samif.dataset.formats import export_labels
from samif.dataset.model import Annotation, Category, Dataset
from samif.errors import ConfigError
from samif.evaluate.errors import Cause, ErrorCase
from samif.inference.segment import UNKNOWN
from samif.masks.rle import areas, boxes

Use = Literal["background", "shots"]
ACCEPTED = "accepted"
"""Folder of a workspace for images and labels of accepted errors, by session."""

_USES: dict[Use, tuple[Cause, ...]] = {
    "background": ("unknown object", "background", "part of an object"),
    "shots": ("unknown object",),
}


def uses_of(cause: Cause) -> list[Use]:
    """What an error of this cause can be accepted as."""
    return [use for use, causes in _USES.items() if cause in causes]


@dataclass(frozen=True)
class Accepted:
    """A session that was added: its objects, new classes and shots per class (none for hard negatives)."""

    objects: int
    classes: tuple[str, ...]
    shots: int | None
    folder: Path


def accept(layout: Layout, errors: Errors, ids: Sequence[str], name: str, use: Use) -> Accepted:
    """Add a session that learns from these errors. Their images are copied into the workspace, with the masks.

    Raises:
        ConfigError: an id is unknown, the cause of an error cannot be removed in this way (rows of known classes never
            change), or the session exists.
        SamifError: the session cannot be added; nothing is changed then.
    """
    cases = [find_case(errors, id_) for id_ in dict.fromkeys(ids)]
    if unusable := [case for case in cases if case.cause not in _USES[use]]:
        raise ConfigError(f"nothing was added: {_refusal(unusable, use, load_params(layout.params))}")
    if use == "shots" and (unnamed := [case.id for case in cases if case.label == UNKNOWN]):
        raise ConfigError(
            f"nothing was added: {', '.join(unnamed)} still {'has' if len(unnamed) == 1 else 'have'} the label "
            f"'{UNKNOWN}'; give the objects the name of their class first, or accept them as background"
        )
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ConfigError(f"'{name}' cannot be the name of a session; use letters, digits, - and _") from None
    folder = layout.root / ACCEPTED / name
    if folder.exists():
        raise ConfigError(f"{folder} exists; choose another name for the session, or remove that folder")
    dataset = _labelled(errors.dataset, cases, use)
    export_labels(dataset, folder, "coco", images=True)
    source = CocoSource(images=str(folder / "images"), annotations=str(folder / "instances.json"))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder)
        accepted = _add(layout, cases, name, use, source)
        undo.pop_all()
    return accepted


def _add(layout: Layout, cases: Sequence[ErrorCase], name: str, use: Use, source: CocoSource) -> Accepted:
    folder = Path(source.images).parent
    if use == "background":
        return Accepted(add_background(layout.root, name, source), (), None, folder)
    counts = Counter(case.label for case in cases if case.label is not None)
    classes, shots = tuple(sorted(counts)), min(counts.values())
    add_session(layout.root, name, classes, shots, source=source)
    return Accepted(len(cases), classes, shots, folder)


_WORDS: dict[Use, str] = {"background": "hard negatives", "shots": "shots of new classes"}


def _refusal(cases: Sequence[ErrorCase], use: Use, params: Params) -> str:
    """Which errors a session cannot learn from, and what to do instead; one phrase for those with the same remedy."""
    of_reason: defaultdict[str, list[str]] = defaultdict(list)
    for case in cases:
        of_reason[_reason(case, use, params)].append(f"{case.id} ({case.cause})")
    return "; ".join(f"{', '.join(named)} cannot become {_WORDS[use]}: {why}" for why, named in of_reason.items())


def _reason(case: ErrorCase, use: Use, params: Params) -> str:
    if case.cause in _USES["background"]:
        return "no class of an object is labelled there; accept it as background"
    if case.cause == "double":
        return "the object has its name already; choose another evaluate.duplicates or a lower evaluate.duplicate_iou"
    session = next((name for name, made in params.sessions.items() if case.label in made.classes), None)
    learn = (
        "add labelled images of it to the training images, from which 'samif run' then trains the base again"
        if session is None
        else f"remove session '{session}' and those after it, and add it again with more shots"
    )
    return f"'{case.label}' is a known class, and rows of known classes never change; {learn}"


def _labelled(dataset: Dataset, cases: Sequence[ErrorCase], use: Use) -> Dataset:
    """The images of the errors, with the masks of these errors alone, under the false name or the object's class."""
    of_image: defaultdict[int, list[Annotation]] = defaultdict(list)
    for number, case in enumerate(cases, start=1):
        name = (case.name if use == "background" else case.label) or ""
        x, y, width, height = boxes([case.rle])[0].tolist()
        mask = Annotation(number, name, case.rle, False, (x, y, width, height), float(areas([case.rle])[0]))
        of_image[case.image.id].append(mask)
    images = [replace(dataset.image(id_), annotations=tuple(found)) for id_, found in of_image.items()]
    names = sorted({a.category for found in of_image.values() for a in found})
    return Dataset(dataset.root, tuple(Category(i, n) for i, n in enumerate(names, start=1)), tuple(images))
