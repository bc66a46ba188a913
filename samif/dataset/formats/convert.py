"""Labels of other tools as COCO instances, checked by the reader of COCO files before anything is written."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from samif.config import ReadRules
from samif.dataset.check import Finding, kinds, raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.findings import NOTHING_TO_DO, Findings
from samif.dataset.formats import coco, cvat, label_studio, labelme, mask_folder, via, voc, yolo
from samif.dataset.formats.export import check_output, commit_labels
from samif.dataset.formats.guess import guess_format
from samif.dataset.formats.image_files import ImageFinder, sizes
from samif.dataset.formats.labels import ImportOptions, LabelledImage, Labels, Outline, Source
from samif.dataset.model import Dataset
from samif.dataset.values import get, whole
from samif.errors import DataError

Progress = Callable[[int, int], None]

_RULES = ReadRules(broken_images="quarantine", broken_labels="quarantine", max_broken_labels=1.0)
"""Everything is reported, so that nothing has to be refused."""

_READERS: Mapping[str, Callable[[Source], Labels]] = {
    "yolo": yolo.read,
    "labelme": labelme.read,
    "voc": voc.read,
    "via": via.read,
    "cvat": cvat.read,
    "label-studio": label_studio.read,
    "masks": mask_folder.read,
}


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        recognised: by what the format was guessed; "" where a person named it.
        images: folder that `file_name` in the COCO file is relative to.
        annotations: the COCO file.
        dataset: what samif reads from that file.
        findings: every loss and every change.
    """

    format: str
    recognised: str
    images: Path
    annotations: Path
    dataset: Dataset
    findings: tuple[Finding, ...]


def import_labels(
    path: Path,
    out: Path,
    format_: str | None = None,
    images: Path | None = None,
    options: ImportOptions | None = None,
    *,
    force: bool = False,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Read labels in any of `FORMATS` and write them as a COCO instance file, whole or not at all.

    Args:
        path: file or folder of the labels.
        out: the COCO file.
        format_: one of `FORMATS`; None guesses it from the content.
        images: folder of the images; None looks for them where the labels say, beside and below the labels.
        force: whether `out` may be replaced.
        allow_empty: whether images without any label are enough.
        progress: called with (images opened, images in all).

    Raises:
        ObjectMissing: there are no labels at `path`.
        DataError: they cannot be read, no image or no label is left, or `out` is there or cannot be written.
    """
    check_output(out, force)
    if images is not None and not images.is_dir():
        raise DataError(f"{images} is not a folder; name the folder that holds the images")
    guessed, recognised = guess_format(path) if format_ is None else (format_, "")
    finder = ImageFinder(images or (path if path.is_dir() else path.parent), images is not None)
    source = Source(path, finder, Findings(path.name), options or ImportOptions())
    if guessed == "coco":
        content, paths = coco.read(source)
        root = _root(images, paths.values())
        for record in content["images"]:
            if isinstance(record, dict) and record.get("file_name") in paths:
                record["file_name"] = _relative(paths[record["file_name"]], root)
    else:
        labels = _READERS[guessed](source)
        root = _root(images, (image.path for image in labels.images))
        content = _to_coco(labels, root, source)
    if not content["images"]:
        raise DataError(f"{path} holds no labelled image that can be imported{_told(source.findings.all())}")
    if not content["annotations"] and not allow_empty:
        raise DataError(f"{path} holds no outline that can be imported{_told(source.findings.all())}")
    rules = _RULES.model_copy(update={"labels_on": source.options.labels_on})
    with TemporaryDirectory(prefix="samif-") as folder:
        draft = Path(folder) / out.name
        draft.write_text(json.dumps(content), encoding="utf-8")
        dataset, found = read_coco(root, draft, rules, progress)
    polygons = {whole(get(r, "id")): get(r, "segmentation") for r in content["annotations"]}
    if guessed != "coco":
        dataset, polygons = _numbered(dataset, polygons)
    findings = (*source.findings.all(), *found)
    raise_on_errors(found)
    if not allow_empty and not any(image.annotations for image in dataset.images):
        raise DataError(f"{path} holds no outline that can be imported{_told(findings)}")
    commit_labels(out, coco.content_of(dataset, polygons))
    return Imported(guessed, recognised, root, out, dataset, findings)


def _to_coco(labels: Labels, root: Path, source: Source) -> dict[str, list[Any]]:
    """COCO content; images are numbered in the order of their names, classes in that of theirs, so that the same labels
    give the same ids from every format."""
    images = sorted(_joined(labels.images, source), key=lambda image: _relative(image.path, root))
    images = [image for image in images if _fits(image, source)]
    listed = {name for raw in labels.classes if (name := source.class_name(raw, source.path.name)) is not None}
    names = sorted(listed | {outline.category for image in images for outline in image.outlines})
    id_of = {name: number for number, name in enumerate(names, start=1)}
    records: list[Any] = []
    annotations: list[Any] = []
    for number, image in enumerate(images, start=1):
        declared = image.size or (sizes(image.path) or (None,))[0]
        size = {} if declared is None else {"width": declared[0], "height": declared[1]}
        records.append({"id": number, "file_name": _relative(image.path, root), **size})
        for outline in _grouped(image, source):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": id_of[outline.category],
                    "segmentation": outline.parts[0] if isinstance(outline.parts[0], dict) and len(outline.parts) == 1
                    else list(outline.parts),
                    "iscrowd": 0,
                }
            )  # fmt: skip
    categories = [{"id": number, "name": name} for name, number in id_of.items()]
    return {"images": records, "annotations": annotations, "categories": categories}


def _joined(images: Iterable[LabelledImage], source: Source) -> list[LabelledImage]:
    """One entry per image file."""
    by_path: dict[Path, LabelledImage] = {}
    for image in images:
        first = by_path.setdefault(image.path, image)
        if first is not image:
            source.change(image.path.name, "has labels in several records, which were joined")
            first.outlines += image.outlines
            first.size = first.size or image.size
    return list(by_path.values())


def _fits(image: LabelledImage, source: Source) -> bool:
    """Whether the labels are of the size of the image file, upright or as stored."""
    actual = sizes(image.path)
    if image.size is None or actual is None or image.size in actual:
        return True
    source.findings.add(
        f"has labels of {image.size[0]} x {image.size[1]} pixels, but is {actual[0][0]} x {actual[0][1]}; "
        f"{len(image.outlines)} labels left out",
        "name the folder of the images that were labelled with --images", image.path.name,
        level="warning", loss="image", kind="has labels of another size than the image, which were left out",
    )  # fmt: skip
    return False


def _grouped(image: LabelledImage, source: Source) -> list[Outline]:
    """The objects of an image; outlines of one class and one group are parts of one object."""
    outlined = {(outline.category, outline.group) for outline in image.outlines if outline.group and not outline.box}
    grouped: defaultdict[tuple[str, str], list[Outline]] = defaultdict(list)
    for number, outline in enumerate(image.outlines):
        key = outline.category, outline.group or f"alone {number}"
        if not outline.box:
            grouped[key].append(outline)
        elif key in outlined:
            source.findings.tally("boxes in a group with the outline of their object", NOTHING_TO_DO)
        elif (taken := source.box(outline, image.path.name)) is not None:
            grouped[key].append(taken)
    for (category, group), outlines in grouped.items():
        if len(outlines) > 1:
            source.change(image.path.name, f"has {len(outlines)} outlines of '{category}' in group {group}, which were "
                          "joined to one object", "take them out of the group if they are several objects",
                          "has outlines of one class and group, which were joined to one object")  # fmt: skip
    return [Outline(key[0], tuple(part for o in same for part in o.parts)) for key, same in grouped.items()]


def _root(given: Path | None, paths: Iterable[Path]) -> Path:
    """The folder of the images: the one that a person named, else the deepest that holds all of them."""
    absolute = [os.path.abspath(path.parent) for path in paths]
    if given is not None and all(Path(path).is_relative_to(os.path.abspath(given)) for path in absolute):
        return given
    return Path(os.path.relpath(os.path.commonpath(absolute))) if absolute else given or Path(".")


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _numbered(dataset: Dataset, polygons: coco.Polygons) -> tuple[Dataset, coco.Polygons]:
    """Labels numbered by image, class and place, so that the same labels give the same ids from every format."""
    fresh = count(1)
    renamed: coco.Polygons = {}
    images = []
    for image in dataset.images:
        ordered = sorted(image.annotations, key=lambda a: (a.category, a.bbox[1], a.bbox[0], a.rle["counts"]))
        numbered = [replace(a, id=next(fresh)) for a in ordered]
        renamed |= {new.id: polygons.get(old.id) for old, new in zip(ordered, numbered, strict=True)}
        images.append(replace(image, annotations=tuple(numbered)))
    return replace(dataset, images=tuple(images)), renamed


def _told(findings: Iterable[Finding]) -> str:
    """The most frequent losses, as the end of a sentence."""
    lost = sorted((kind for kind in kinds(findings) if kind.loss), key=lambda kind: -kind.count)
    return "".join(f"; {kind.count} times: {kind.what}" for kind in lost[:3]) or "; name the folder of the labels"
