"""How many objects of a class a session can learn from: those that the hold-out leaves in the training images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.runtime.progress import track
from flows.workspace.layout import Layout
from flows.workspace.source_paths import source_at
from samif.config import CocoSource, Params, ReadRules
from samif.errors import ConfigError

if TYPE_CHECKING:
    from samif.dataset.check import Finding
    from samif.dataset.model import Dataset, ImageRecord


@dataclass(frozen=True)
class Available:
    """Objects by class, crowd regions left out: those to learn from, and those in images that are held out.

    Attributes:
        place: the file that they were counted in.
    """

    counts: Counter[str]
    held_out: Counter[str]
    place: Path

    def check(self, name: str, classes: Sequence[str], shots: int) -> None:
        """Refuse a session whose classes are unknown or have too few objects.

        Raises:
            ConfigError: names the session, the class and, where it matters, the hold-out.
        """
        if not classes:
            raise ConfigError(f"session '{name}' has no class; give at least one")
        for cls in classes:
            here, out = self.counts[cls], self.held_out[cls]
            if cls not in self.counts and cls not in self.held_out:
                known = ", ".join(list(self.counts)[:20]) + (", ..." if len(self.counts) > 20 else "")
                raise ConfigError(f"class '{cls}' of session '{name}' is not in {self.place}; it has {known}")
            if here >= shots:
                continue
            if here + out >= shots:
                raise ConfigError(
                    f"class '{cls}' of session '{name}' has {here} objects to learn from, fewer than {shots} shots: "
                    f"{out} of its {here + out} objects in {self.place} are in the images that are held out for "
                    "validation; ask for fewer shots, label more images, or give validation images of their own"
                )
            raise ConfigError(
                f"class '{cls}' of session '{name}' has {here + out} objects in {self.place}, fewer than {shots} "
                "shots; label more images or ask for fewer shots"
            )


def read_labels(source: CocoSource, rules: ReadRules | None = None) -> tuple[Dataset, list[Finding]]:
    """The labels of a COCO instance file, and what was found. Only images are opened whose size the file does not say
    or whose labels do not fit it. Images that are missing are left out, whatever the rules are: it is the first run
    that refuses them.

    Raises:
        SamifError: the file is missing or no COCO instance file, or its labels cannot be used.
    """
    from samif.dataset.check import raise_on_errors
    from samif.dataset.coco import read_coco

    rules = (rules or ReadRules()).model_copy(update={"broken_images": "quarantine"})
    dataset, findings = read_coco(Path(source.images), Path(source.annotations), rules, open_images=False)
    raise_on_errors(findings)
    return dataset, findings


def count_objects(dataset: Dataset) -> Counter[str]:
    """Objects (not crowds) per category, categories in the file's order, zeros included."""
    from samif.dataset.check import class_counts

    return Counter({name: objects for name, (objects, _) in class_counts(dataset).items()})


def after_holdout(dataset: Dataset, share: float, seed: int, place: Path) -> Available:
    """What a run leaves to learn from where it holds out a part of these images, which are read for it.

    Raises:
        DataError: there are not two different images.
    """
    from samif.dataset.sessions import split_by_image

    with track(len(dataset.images), "images", "split") as progress, ThreadPoolExecutor(os.cpu_count()) as pool:

        def hashed(image: ImageRecord) -> ImageRecord:
            sha256 = _sha256(dataset.path_of(image))
            progress.advance()
            return replace(image, sha256=sha256)

        images = tuple(pool.map(hashed, dataset.images))
    train, val = split_by_image(replace(dataset, images=images), share, seed)
    return Available(count_objects(train), count_objects(val), place)


def _sha256(path: Path) -> str:
    """ "" of a file that cannot be read, which the first run refuses or leaves out."""
    from samif.io.hashing import file_sha256

    try:
        return file_sha256(path)
    except OSError:
        return ""


def available(layout: Layout, params: Params) -> Available:
    """What the sessions of a workspace can learn from: by the checked index once there is one, else by the source."""
    held_out = params.dataset.train is not None and params.dataset.val is None
    if layout.index("train").exists():
        from samif.dataset.model import Dataset

        counts = {split: count_objects(Dataset.load(layout.index(split), layout.root)) for split in ("train", "val")}
        return Available(counts["train"], counts["val"] if held_out else Counter(), layout.index("train"))
    if params.dataset.train is not None:
        source = source_at(layout.root, params.dataset.train)
        dataset, place = read_labels(source, params.dataset)[0], Path(source.annotations)
        if held_out:
            return after_holdout(dataset, params.dataset.holdout, params.dataset.seed, place)
        return Available(count_objects(dataset), Counter(), place)
    from samif.dataset.draw.parts import BASE_PARTS, NOVEL_PARTS

    # Nothing is drawn yet, so there is nothing to count; every part appears in many scenes.
    return Available(Counter(dict.fromkeys((*BASE_PARTS, *NOVEL_PARTS), 10**6)), Counter(), layout.drawn)
