"""Import labels of other tools into a folder of images, through the same function as `samif data import`."""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Form, UploadFile

from flows.console.access import Person, Routes
from flows.console.label_file import LabelledObject
from flows.console.set_routes import FormatName, Of
from flows.console.state import At
from flows.console.texts import ClassName
from flows.console.uploads import unpacked
from samif.errors import DataError, ObjectMissing
from samif.inference.segment import UNKNOWN

if TYPE_CHECKING:
    from samif.dataset.check import Kind

routes = Routes()
_ON_PAGE = (
    ("name the folder of the images that were labelled with --images", "add the images that were labelled"),
    ("name the folder of the images with --images", "add the images to the folder of images"),
    ("give --default-class", "enter a class for labels without one"),
    ("give --boxes outline", "take boxes as outlines"),
    ("name the format with --format", "choose the format"),
)
"""What the import says of its options on the command line, and what is said on the page."""


@routes.post("/workspaces/{workspace}/sets/{set_id}/import", "labeller")
def import_(
    place: At,
    of: Of,
    account: Person,
    files: list[UploadFile],
    format_: Annotated[FormatName | None, Form(alias="format")] = None,
    boxes: Annotated[Literal["leave-out", "outline"], Form()] = "leave-out",
    default_class: Annotated[ClassName | None, Form()] = None,
    labelled: Annotated[Literal["keep", "replace", "join"], Form()] = "keep",
) -> dict[str, Any]:
    """Add the labels of a file, a folder or a ZIP archive; the answer lists every loss and every change.

    `labelled` is what becomes of images that are labelled already: they keep their labels, the imported ones take their
    place, or both stay.
    """
    from samif.dataset.check import kinds
    from samif.dataset.formats import ImportOptions, import_labels

    with tempfile.TemporaryDirectory(prefix="samif-import-") as made:
        folder = Path(made).resolve()
        try:
            source = unpacked(files, folder / "import")
            options = ImportOptions(boxes=boxes, default_class=default_class)
            done = import_labels(source, folder / "imported.json", format_, of.folder, options)
        except (DataError, ObjectMissing) as error:
            raise DataError(_on_page(str(error), folder)) from None
    if UNKNOWN in {a.category for image in done.dataset.images for a in image.annotations}:
        raise DataError(f"the labels have a class '{UNKNOWN}', which stands for none; rename the class")
    shown = [(i, [a for a in i.annotations if not a.crowd]) for i in done.dataset.images]
    images = [
        (place.sets.facts(of, image.file_name), [LabelledObject(a.category, a.rle) for a in own])
        for image, own in shown
        if own
    ]
    kept = of.labels.add(images, account.name, labelled)
    count = sum(len(own) for image, own in images if image.name not in kept)
    place.actions.add(account, "import labels", set=of.id, format=done.format, objects=count, labelled=labelled)
    return {
        "format": done.format,
        "recognised": _on_page(done.recognised, folder),
        "images": len(images) - len(kept),
        "objects": count,
        "kept": kept,
        "crowds": sum(len(i.annotations) for i in done.dataset.images) - sum(len(own) for _, own in shown),
        "left_out": sum(finding.count for finding in done.findings if finding.loss in ("image", "label")),
        "findings": [_kind(kind, folder) for kind in kinds(done.findings)],
    }


def _kind(kind: Kind, folder: Path) -> dict[str, Any]:
    """Findings of one kind for the page."""
    words = {"what": _on_page(kind.what, folder), "remedy": _on_page(kind.remedy, folder)}
    return asdict(kind) | words | {"places": [_on_page(place, folder) for place in kind.places]}


def _on_page(sentence: str, folder: Path) -> str:
    """A sentence of the import for the page: without the place where the files lie here, and without options."""
    for option, words in _ON_PAGE:
        sentence = sentence.replace(option, words)
    return re.sub(rf"{re.escape(str(folder))}/(import/)?", "", sentence)
