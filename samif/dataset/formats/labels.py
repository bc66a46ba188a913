"""Labels of any tool in memory, and what a reader of a format is given.

Frame of all outlines: pixels of the image that the tool showed, x to the right, y down, (0, 0) the outer corner of the
first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from samif.dataset.findings import NOTHING_TO_DO, Findings
from samif.dataset.formats.image_files import ImageFinder
from samif.dataset.segmentation import Rle
from samif.dataset.values import text_of

Size = tuple[int, int]
Part = list[float] | Rle
"""A polygon, [x1, y1, x2, y2, ...], or a mask of the whole image; the parts of an object are united."""

DEFAULT_CLASS = "object"


@dataclass(frozen=True)
class Outline:
    """One labelled object.

    Attributes:
        group: objects of one class and one group in an image are parts of one object; "" is no group.
        box: whether it is only a box about the object.
    """

    category: str
    parts: tuple[Part, ...]
    group: str = ""
    box: bool = False


@dataclass
class LabelledImage:
    """An image file and its objects; `size` is (width, height) as the labels declare it, None where they do not."""

    path: Path
    size: Size | None
    outlines: list[Outline] = field(default_factory=list)


@dataclass
class Labels:
    """What a reader of a format returns: classes that the format lists, used or not, and labelled images."""

    classes: list[str]
    images: list[LabelledImage]


@dataclass(frozen=True)
class ImportOptions:
    """Choices of the person who imports.

    Attributes:
        boxes: whether boxes are left out or taken as rectangular outlines.
        split: part of a data set that is split; None takes all parts.
        class_key: attribute of VGG VIA that holds the class; None finds it.
        default_class: class of objects whose labels name none; None leaves them out, masks apart.
        labels_on: what outlines on an image that an EXIF tag turns were drawn on; `auto` decides by the sizes.
    """

    boxes: Literal["leave-out", "outline"] = "leave-out"
    split: str | None = None
    class_key: str | None = None
    default_class: str | None = None
    labels_on: Literal["auto", "upright", "stored"] = "auto"


@dataclass
class Source:
    """What is imported, and where losses and changes are noted.

    Attributes:
        path: file or folder that the person named.
    """

    path: Path
    finder: ImageFinder
    findings: Findings
    options: ImportOptions = field(default_factory=ImportOptions)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def leave_out(self, place: str, what: str, remedy: str, kind: str = "") -> None:
        """A label that is not imported; `what` is a phrase whose subject is the image or label file `place`."""
        self.findings.add(what, remedy, place, level="warning", loss="label", kind=kind)

    def change(self, place: str, what: str, remedy: str = NOTHING_TO_DO, kind: str = "") -> None:
        """A label or name that is imported otherwise than it was written."""
        self.findings.add(what, remedy, place, level="warning", kind=kind)

    def no_file(self, place: str, why: str, labels: int) -> None:
        """An image that is not imported, with the number of its labels."""
        self.findings.add(
            f"{why}; {labels} {'label' if labels == 1 else 'labels'} left out",
            "name the folder of the images with --images",
            place,
            level="warning",
            loss="image",
            kind=f"{why}, with its labels",
        )

    def image(self, name: str, beside: Path, labels: int) -> Path | None:
        """The image file of that name in the labels; None where there is none, which is noted.

        Args:
            beside: folder that the name is relative to.
            labels: number of labels that are lost with it.
        """
        found = self.finder.find(name, beside)
        if found.path is None:
            self.no_file(name, f"is named by {found.count} files" if found.count else "has no image file", labels)
        elif found.elsewhere:
            self.change(name, f"was found as {found.path.as_posix()}", kind="was found by its name in another place")
        return found.path

    def class_name(self, raw: object, place: str) -> str | None:
        """A class name as samif writes it; None, which is noted, where a label has none."""
        name = text_of(raw) if raw is not None else None
        if name is None:
            name = self.options.default_class
            if name is None:
                self.leave_out(place, "has a label without a class", "name the class, or give --default-class")
        elif name != raw:
            self.findings.tally("labels whose class name was cleaned of blanks or line breaks", "check the name", raw)
        return name

    def box(self, outline: Outline, place: str) -> Outline | None:
        """A box as the options want it: as an outline, or left out, which is None."""
        if self.options.boxes == "outline":
            self.change(place, "has a box, which was taken as an outline", kind="have a box that was taken as outline")
            return outline
        self.leave_out(place, "has a box without an outline", "outline the object, or give --boxes outline")
        return None

    def other_shape(self, kind: object, place: str) -> None:
        """A shape that has no area: points, lines, tags and the like."""
        self.leave_out(place, f"has a label of the kind '{kind}', which has no outline", "outline the object")
