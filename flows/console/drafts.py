"""What the next two sessions learn: objects that were accepted or fixed in the review, and objects never to be named.

Both are label sets of the workspace, `review` and `never-name`, with copies of the images. A session takes what it
learns out of its set.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from flows.console.label_file import LabelledObject
from flows.console.label_sets import LabelSet, LabelSets, Purpose
from flows.error_analysis.accept import ACCEPTED, Use
from flows.workspace.edit import add_background, add_session
from flows.workspace.layout import Layout
from samif.config import CocoSource, ReadRules
from samif.dataset.check import raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.formats import export_labels
from samif.dataset.images import inspect_image
from samif.errors import ConfigError, DataError, ObjectMissing
from samif.io import files

SET_OF: dict[Use, Purpose] = {"shots": "review", "background": "never-name"}


@dataclass(frozen=True)
class Taught:
    """A session that was added: its objects, classes, and shots per class (none for background samples)."""

    objects: int
    classes: tuple[str, ...]
    shots: int | None


class Drafts:
    """The two label sets of one workspace."""

    def __init__(self, layout: Layout, sets: LabelSets) -> None:
        self._layout, self._sets = layout, sets

    def of(self, use: Use) -> LabelSet:
        """The set of a use."""
        return self._sets.drafts[SET_OF[use]]

    def images(self, use: Use) -> list[Path]:
        """The images of a set."""
        folder = self.of(use).folder
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def take_image(self, use: Use, path: Path) -> str:
        """Copy an image into a set; its name there.

        Raises:
            ObjectMissing: the image is gone.
            ImageError: it cannot be read.
        """
        if not path.is_file():
            raise ObjectMissing(f"the image {path.name} is gone; it was removed to make room for newer ones")
        name = f"{inspect_image(path).sha256[:16]}{path.suffix.lower()}"
        target = self.of(use).folder / name
        if not target.exists():
            files.commit(target, path.read_bytes())
        return name

    def add(self, use: Use, path: Path, objects: Sequence[LabelledObject], who: str) -> None:
        """Add objects of an image to a set.

        Raises:
            SamifError: the image is gone, or a mask is not one of it.
        """
        name, target = self.take_image(use, path), self.of(use)
        target.labels.add([(self._sets.facts(target, name), objects)], who, "join")

    def teach(self, use: Use, name: str, classes: Sequence[str] = (), shots: int | None = None) -> Taught:
        """Add a session to params.yaml that learns from a set; what it learns is moved to `accepted/NAME`.

        Args:
            name: of the session.
            classes: to learn, for shots.
            shots: per class; None takes as many as each class has.

        Raises:
            SamifError: the set is empty, or the session cannot be added; nothing is changed then.
        """
        source = self.of(use)
        folder = self._layout.root / ACCEPTED / name
        if folder.exists():
            raise ConfigError(f"there was already a session '{name}'; choose another name")
        with source.labels.locked(), ExitStack() as undo:
            counts = source.labels.classes()
            chosen = [cls for cls, count in counts.items() if count and (use == "background" or cls in classes)]
            if not chosen:
                raise DataError("there is no object to learn from; accept or fix one first, and choose its class")
            dataset, findings = read_coco(source.folder, source.labels.path, ReadRules())
            raise_on_errors(findings)
            dataset = dataset.only(i.id for i in dataset.images if any(a.category in chosen for a in i.annotations))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            export_labels(dataset, folder, "coco", images=True)
            labels = CocoSource(images=str(folder / "images"), annotations=str(folder / "instances.json"))
            found = Counter(a.category for image in dataset.images for a in image.annotations if a.category in chosen)
            if use == "background":
                taught = Taught(add_background(self._layout.root, name, labels), (), None)
            else:
                shots = shots or min(found.values())
                add_session(self._layout.root, name, chosen, shots, source=labels)
                taught = Taught(found.total(), tuple(chosen), shots)
            undo.pop_all()
            for image in source.labels.drop(chosen):
                (source.folder / image).unlink(missing_ok=True)
        return taught
