"""COCO instance files: the one reader of every command. The data classes are in `model`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from samif.config import ReadRules
from samif.dataset.check import Finding, apply_rules, empty_classes, oddities
from samif.dataset.coco_classes import read_classes
from samif.dataset.coco_file import CocoFile
from samif.dataset.coco_images import Entries, Progress, inspect, read_entries
from samif.dataset.coco_json import load_json
from samif.dataset.coco_labels import LabelReader
from samif.dataset.findings import Findings
from samif.dataset.images import ImageFacts
from samif.dataset.label_frames import Frame, label_frames, misfits, turned_upright
from samif.dataset.label_table import LabelTable
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.errors import DataError

__all__ = ["Annotation", "Category", "Dataset", "ImageRecord", "load_json", "read_coco"]

Keep = Callable[[Sequence[Category], Iterable[ImageRecord]], Sequence[ImageRecord]]


def _in_memory(_: Sequence[Category], images: Iterable[ImageRecord]) -> Sequence[ImageRecord]:
    return tuple(images)


def read_coco(
    images: Path,
    annotations: Path,
    rules: ReadRules | None = None,
    progress: Progress | None = None,
    *,
    open_images: bool = True,
    keep: Keep = _in_memory,
) -> tuple[Dataset, list[Finding]]:
    """Read a COCO instance file, open every image that it names, and check both.

    Args:
        images: folder that `file_name` is relative to.
        annotations: COCO JSON with `images`, `annotations`, `categories`, also as gzip.
        rules: what is done about images and labels that cannot be used, about regions of many objects, and about labels
            of images that an EXIF tag turns; None takes the defaults of params.yaml.
        progress: called with (images opened, images in all).
        open_images: False opens only images whose size the file does not say or whose labels do not fit it, and warns
            of no oddities: for counting labels.
        keep: takes the classes and the images, one at a time, and gives the images back as a sequence: in memory, or
            in a file (`index_file.spill`). Of the annotations, only one at a time is in memory before that.

    Returns:
        The data set and what was found, errors in file order before warnings. The data set holds all that it
        can hold: where broken images are refused, an image that cannot be read keeps its labels and has sha256 "", and
        a size that differs from the file's stays as declared. Labels without a usable image, class or mask are absent,
        each with a finding. The caller decides (`check.raise_on_errors`).

    Raises:
        ObjectMissing: there is no such file.
        DataError: there is no such folder, or the file is no COCO instance file at all.
    """
    if not images.is_dir():
        raise DataError(f"{images} is not a folder; name the folder that holds the images")
    rules = rules or ReadRules()
    findings = Findings(annotations.name)
    dataset = Dataset(images, *_read(images, annotations, rules, progress, open_images, findings, keep))
    dataset, found = apply_rules(dataset, findings.all(), rules)
    found += empty_classes(dataset, annotations.name)
    if open_images:
        found += oddities(dataset)
    return dataset, sorted(found, key=lambda finding: finding.level != "error")


def _read(
    images: Path,
    annotations: Path,
    rules: ReadRules,
    progress: Progress | None,
    open_images: bool,
    findings: Findings,
    keep: Keep,
) -> tuple[tuple[Category, ...], Sequence[ImageRecord]]:
    file = CocoFile(annotations)
    classes = read_classes(file.categories, findings)
    entries = read_entries(file.images, images, findings)
    file.images.clear()
    odd = set() if open_images else misfits(file.annotations(), entries)
    opened = [entry for entry in entries.all if open_images or entry.declared is None or entry.id in odd]
    facts = inspect(opened, images, findings, progress)
    frames = label_frames(entries, facts, file.annotations(), rules.labels_on, findings)
    labels = LabelReader(entries, classes, frames, findings).read(file, rules)
    categories = tuple(classes.all)
    return categories, keep(categories, _records(entries, facts, frames, labels))


def _records(
    entries: Entries, facts: Mapping[int, ImageFacts], frames: Mapping[int, Frame], labels: LabelTable
) -> Iterator[ImageRecord]:
    for entry, here in zip(entries.all, labels.by_image(len(entries.all)), strict=True):
        frame = frames[entry.id]
        width, height = frame.upright or (0, 0)
        sha256 = facts[entry.id].sha256 if entry.id in facts else ""
        upright = tuple(turned_upright(label, frame) for label in here)
        yield ImageRecord(entry.id, entry.file_name, width, height, sha256, upright)
