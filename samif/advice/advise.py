"""Advice about a data set from what was measured in its images, and from features and proposals where there are any."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samif.advice.classes import ClassAdvice, Naming, advise_class, variety_of
from samif.advice.label_errors import BadMask, wrong_names
from samif.advice.look_alikes import LookAlikes, look_alikes, rightly_named, view_shares
from samif.advice.naming import LabelledObjects, out_of_fold
from samif.advice.shots_curve import shots_curve
from samif.advice.traits import Traits
from samif.dataset.check import class_counts
from samif.dataset.model import Dataset, ImageRecord
from samif.dataset.near_duplicates import Array, NearDuplicates, groups_of, near_duplicates
from samif.masks.rle import Rle

MIN_NAMED = 12
"""Labelled objects with features from which names are judged at all."""


@dataclass(frozen=True)
class Measured:
    """An image whose pixels were read: its split, record, thumbnail and the traits of its labels. `features` (L, D) and
    `bad_masks` are of its labels that are no crowds; None where a run has not embedded it."""

    split: str
    image: ImageRecord
    thumbnail: Array
    traits: Sequence[Traits]
    features: NDArray[np.float32] | None = None
    bad_masks: Sequence[BadMask] = ()


@dataclass(frozen=True)
class ImagePair:
    """Two images that are the same or nearly so: `split/file` of each, and their difference (0 for identical files)."""

    first: str
    second: str
    identical: bool
    difference: float
    remedy: str


@dataclass(frozen=True)
class LabelError:
    """A label that is probably wrong; `rival` is the mask that the decoder draws instead."""

    kind: str
    split: str
    file: str
    image: int
    annotation: int
    given: str
    suggested: str | None
    score: float
    remedy: str
    rival: Rle | None = None


@dataclass(frozen=True)
class Advice:
    """All of it. `classes` are of the training images, in category order; `measured_images` were looked at;
    `with_features` says whether names and masks were judged."""

    images: int
    measured_images: int
    background_images: int
    with_features: bool
    classes: tuple[ClassAdvice, ...]
    duplicates: tuple[ImagePair, ...]
    leaks: tuple[ImagePair, ...]
    look_alikes: tuple[LookAlikes, ...]
    label_errors: tuple[LabelError, ...]


def advise(train: Dataset, measured: Sequence[Measured], held_out: bool = False) -> Advice:
    """Advice about the training images, leaks into the validation images, and labels of both.

    Args:
        train: the training images, those that are held out for validation among them.
        measured: images of the splits `train` and `val`.
        held_out: `val` is a part of `train`.
    """
    counted = {"train", "val"} if held_out else {"train"}
    pairs = near_duplicates([m.thumbnail for m in measured])
    group = groups_of(len(measured), pairs)
    objects, places = _objects(measured, group)
    errors = _bad_masks(measured)
    naming: Mapping[str, Naming] = {}
    views: Mapping[str, float] = {}
    alike: list[LookAlikes] = []
    if objects is not None:
        log_probability = out_of_fold(objects)
        alike = look_alikes(objects, log_probability)
        errors += [
            _wrong_name(measured[places[found.row][0]], places[found.row][1], found.suggested, found.score)
            for found in wrong_names(objects, log_probability)
        ]
        seen = [m.split in counted for m in measured]
        views = view_shares(objects.take(np.array([seen[at] for at, _ in places])))
        naming = _naming(objects, rightly_named(objects, log_probability), alike, errors)
    leaks = [pair for pair in pairs if len(_splits(measured, pair)) > 1]
    same = [pair for pair in pairs if pair not in leaks and _splits(measured, pair) <= counted]
    return Advice(
        images=len(train.images),
        measured_images=sum(m.split in counted for m in measured),
        background_images=sum(not image.annotations for image in train.images),
        with_features=objects is not None,
        classes=tuple(_classes(train, [m.split in counted for m in measured], measured, group, naming, views)),
        duplicates=tuple(_pair(measured, pair) for pair in same),
        leaks=tuple(_pair(measured, pair) for pair in leaks),
        look_alikes=tuple(alike),
        label_errors=tuple(sorted(errors, key=lambda error: -error.score)),
    )


def _objects(
    measured: Sequence[Measured], group: NDArray[np.int64]
) -> tuple[LabelledObjects | None, list[tuple[int, int]]]:
    """Labelled objects with features, and (image, label) of each; None where they are too few to be compared."""
    places, features, names, groups = [], [], [], []
    for at, m in enumerate(measured):
        labels = [a for a in m.image.annotations if not a.crowd]
        if m.features is None or not labels:
            continue
        features.append(m.features)
        names += [a.category for a in labels]
        groups += [group[at]] * len(labels)
        places += [(at, row) for row in range(len(labels))]
    listed = tuple(sorted(set(names)))
    if len(names) < MIN_NAMED or len(listed) < 2 or len(set(groups)) < 2:
        return None, []
    category = np.array([listed.index(name) for name in names], dtype=np.int64)
    return LabelledObjects(np.concatenate(features), listed, category, np.array(groups, dtype=np.int64)), places


def _naming(
    objects: LabelledObjects, right: Mapping[str, float], alike: Sequence[LookAlikes], errors: Sequence[LabelError]
) -> dict[str, Naming]:
    return {
        name: Naming(
            right=right.get(name),
            look_alikes=tuple(
                pair.second if pair.first == name else pair.first for pair in alike if name in (pair.first, pair.second)
            ),
            wrong_names=sum(e.kind == "name" and e.given == name for e in errors),
            bad_masks=sum(e.kind == "mask" and e.given == name for e in errors),
            curve=shots_curve(objects, row),
        )
        for row, name in enumerate(objects.names)
    }


def _classes(
    train: Dataset,
    counted: Sequence[bool],
    measured: Sequence[Measured],
    group: NDArray[np.int64],
    naming: Mapping[str, Naming],
    views: Mapping[str, float],
) -> list[ClassAdvice]:
    traits: defaultdict[str, list[Traits]] = defaultdict(list)
    shown: defaultdict[str, list[int]] = defaultdict(list)
    for at, m in enumerate(measured):
        if not counted[at]:
            continue
        for trait in m.traits:
            traits[trait.category].append(trait)
        for name in {a.category for a in m.image.annotations if not a.crowd}:
            shown[name].append(int(group[at]))
    found = []
    for name, (instances, images) in class_counts(train).items():
        if not instances:
            continue
        repeated = len(shown[name]) - len(set(shown[name]))
        distinct = min(images - repeated, math.ceil(images * views.get(name, 1.0)))
        found.append(advise_class(name, instances, images, distinct, variety_of(traits[name]), naming.get(name)))
    return found


def _bad_masks(measured: Sequence[Measured]) -> list[LabelError]:
    errors = []
    for m in measured:
        labels = [a for a in m.image.annotations if not a.crowd]
        for bad in m.bad_masks:
            label = labels[bad.row]
            remedy = f"outline the object again if the decoder's outline is right (IoU {bad.iou:.2f} with this one)"
            errors.append(
                LabelError(
                    "mask", m.split, m.image.file_name, m.image.id, label.id, label.category, None, bad.score, remedy,
                    bad.rival,
                )
            )  # fmt: skip
    return errors


def _wrong_name(m: Measured, row: int, suggested: str, score: float) -> LabelError:
    label = [a for a in m.image.annotations if not a.crowd][row]
    remedy = (
        f"name it '{suggested}' if it is one; if the name is right, photograph this view of '{label.category}' more"
    )
    return LabelError(
        "name", m.split, m.image.file_name, m.image.id, label.id, label.category, suggested, score, remedy
    )


def _splits(measured: Sequence[Measured], pair: NearDuplicates) -> set[str]:
    return {measured[pair.first].split, measured[pair.second].split}


def _pair(measured: Sequence[Measured], pair: NearDuplicates) -> ImagePair:
    one, other = measured[pair.first], measured[pair.second]
    leak = one.split != other.split
    identical = bool(one.image.sha256) and one.image.sha256 == other.image.sha256
    remedy = (
        "keep one of them, or validate on images of another day"
        if leak
        else "keep one of them, or photograph the part anew"
    )
    names = [f"{m.split}/{m.image.file_name}" for m in (one, other)]
    return ImagePair(names[0], names[1], identical, 0.0 if identical else pair.difference, remedy)
