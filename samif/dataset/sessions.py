"""Which instances a session learns from, and which images are held out: drawn by content and seed alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from samif.dataset.check import TINY_AREA
from samif.dataset.model import Dataset
from samif.errors import ConfigError, DataError


def draw_shots(dataset: Dataset, classes: Sequence[str], shots: int, seed: int) -> dict[str, list[tuple[int, int]]]:
    """Draw `shots` instances of every class, crowd regions never.

    One instance of each image comes before a second one of any, masks of TINY_AREA pixels and more before
    tiny ones. A draw depends on the seed, the class and the content of its images and masks, not on ids,
    order or other classes; fewer shots are a prefix of more.

    Returns:
        (image id, annotation id) by class, in the order drawn.

    Raises:
        DataError: a class is unknown or has fewer instances than `shots`.
    """
    if shots < 1:
        raise ConfigError(f"{shots} shots were asked for; ask for 1 or more")
    wanted = frozenset(classes)
    candidates: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for image in dataset.images:
        for a in image.annotations:
            if a.category in wanted and not a.crowd:
                chance = _hash(f"{seed}/{a.category}", image.sha256, a.rle["counts"])
                candidates[a.category].append(_Candidate(a.area < TINY_AREA, chance, image.id, a.id, image.sha256))
    drawn = {}
    for name in classes:
        if name not in dataset.category_names:
            known = ", ".join(dataset.category_names)
            raise ConfigError(f"the data set has no class '{name}'; correct the name, it has {known}")
        found = candidates[name]
        if len(found) < shots:
            raise DataError(
                f"class '{name}' has {len(found)} labelled instances, {shots} shots were asked for; "
                "label more of them or ask for fewer shots"
            )
        drawn[name] = [(candidate.image, candidate.annotation) for candidate in _in_draw_order(found)[:shots]]
    return drawn


class _Candidate(NamedTuple):
    """An instance that may be drawn; candidates are compared in this order."""

    tiny: bool
    chance: str
    image: int
    annotation: int
    sha256: str


def _in_draw_order(candidates: list[_Candidate]) -> list[_Candidate]:
    turns: Counter[str] = Counter()
    ranked = []
    for candidate in sorted(candidates):
        ranked.append((candidate.tiny, turns[candidate.sha256], candidate))
        turns[candidate.sha256] += 1
    return [candidate for *_, candidate in sorted(ranked, key=lambda entry: entry[:2])]


@dataclass(frozen=True, slots=True)
class _Group:
    """Images of equal content, which stay together, and the classes that they show."""

    key: str
    ids: tuple[int, ...]
    classes: frozenset[str]


def split_by_image(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split into (train, val), about `fraction` of the images in val, every class on both sides where possible.

    Iterative stratification (Sechidis et al., On the Stratification of Multi-Label Data, 2011): the rarest
    class places its images first, each where that class is wanted most. A class in one image stays in
    train. Images of equal content are never parted. Depends on content and seed, not on ids or order.

    Raises:
        DataError: `fraction` is not between 0 and 1, or there are not two different images.
    """
    if not 0.0 < fraction < 1.0:
        raise ConfigError(f"a share of {fraction} cannot be held out; give one above 0 and below 1")
    groups = _groups(dataset, seed)
    if len(groups) < 2:
        raise DataError(f"{dataset.root} holds {len(groups)} different images; a split needs 2 or more")
    val = _held_out(groups, fraction)
    held_out = {id_ for group in groups if group.key in val for id_ in group.ids}
    rest = [image.id for image in dataset.images if image.id not in held_out]
    return dataset.only(rest), dataset.only(held_out)


def _groups(dataset: Dataset, seed: int) -> list[_Group]:
    """Groups of equal content, in the order of chance."""
    groups: dict[str, _Group] = {}
    known: dict[frozenset[str], frozenset[str]] = {}  # most sets of classes are those of many images
    for image in dataset.images:
        key = _hash(str(seed), image.sha256)
        shown = frozenset(a.category for a in image.annotations if not a.crowd)
        same = groups.get(key)
        ids, shown = ((*same.ids, image.id), same.classes | shown) if same else ((image.id,), shown)
        groups[key] = _Group(key, ids, known.setdefault(shown, shown))
    return sorted(groups.values(), key=lambda group: group.key)


def _held_out(groups: list[_Group], fraction: float) -> set[str]:
    """Keys of the groups that go to val."""
    # What each side still lacks, by class and, under None, in groups of any kind.
    train: Counter[str | None] = Counter(key for group in groups for key in (None, *group.classes))
    val = Counter({key: _share(count, fraction) for key, count in train.items()})
    train.subtract(val)
    side: dict[str, bool] = {}
    left = groups
    while left:
        counts = Counter(name for group in left for name in group.classes)
        rarest = min(counts, key=lambda name: (counts[name], name), default=None)
        for group in left:
            if rarest is None or rarest in group.classes:
                to_val = (val[rarest], val[None]) > (train[rarest], train[None])
                (val if to_val else train).subtract([None, *group.classes])
                side[group.key] = to_val
        left = [group for group in left if group.key not in side]
    if len(set(side.values())) == 1:  # every class in one image: move the one that costs fewest classes
        moved = min(groups, key=lambda group: (len(group.classes), group.key))
        side[moved.key] = not side[moved.key]
    return {key for key, to_val in side.items() if to_val}


def _share(count: int, fraction: float) -> int:
    """`fraction` of `count`, and at least one on either side where there are two."""
    return min(max(round(count * fraction), 1), count - 1)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
