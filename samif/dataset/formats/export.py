"""Write a data set's labels in any of the formats that are imported, with its images or without them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from samif.dataset.formats import coco
from samif.dataset.formats.writers import IMAGE_FOLDERS, WRITERS
from samif.dataset.model import Dataset
from samif.errors import DataError
from samif.io import files


def export_labels(
    dataset: Dataset, out: Path, format_: str = "coco", *, images: bool = False, force: bool = False
) -> list[str]:
    """Write the labels of a data set, whole or not at all. Masks of COCO are compressed RLE, exact to the pixel.

    Args:
        out: the COCO file; the folder of the labels for another format, or if the images are copied too.
        format_: one of `FORMATS`.
        images: whether the images are copied beside the labels.
        force: whether files that are there may be replaced.

    Returns:
        What the format does not hold, one sentence each.

    Raises:
        DataError: `out` is there or cannot be written, or the format cannot hold the classes or names of images.
    """
    if format_ == "coco" and not images:
        check_output(out, force)
        commit_labels(out, coco.content_of(dataset))
        return []
    check_output_folder(out, force)
    lost: Counter[str] = Counter()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".samif-", dir=out.parent) as temporary:
            draft = Path(temporary) / "labels"
            for name, content in WRITERS[format_](dataset, lost):
                _write(draft / name, content)
            if images:
                _copy_images(dataset, draft, format_)
            _move(draft, out)
    except OSError as error:
        raise DataError(f"{error.filename or out} cannot be written ({error.strerror}); name another folder") from None
    return [f"{count} {what}" for what, count in lost.items() if count]


def check_output(out: Path, force: bool) -> None:
    """Raises DataError: `out` is a folder, or a file that may not be replaced."""
    if out.is_dir():
        raise DataError(f"{out} is a folder; name the COCO file to write, such as {out / 'annotations.json'}")
    if out.exists() and not force:
        raise DataError(f"{out} exists; name another file, or replace it with --force")


def check_output_folder(out: Path, force: bool) -> None:
    """Raises DataError: `out` is a file, or a folder with files that may not be replaced."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name the folder to write")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise DataError(f"{out} is not empty; name another folder, or replace files of the same names with --force")


def commit_labels(out: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        files.commit(out, content)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror}); name another file") from None


def _copy_images(dataset: Dataset, folder: Path, format_: str) -> None:
    below = folder / IMAGE_FOLDERS.get(format_, "images")
    for image in dataset.images:
        name = PurePosixPath(image.file_name).name if format_ == "voc" else image.file_name
        target = below / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(dataset.path_of(image), target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _move(draft: Path, out: Path) -> None:
    """Put a finished folder in its place; into a folder that is there, file by file."""
    if not out.exists():
        os.rename(draft, out)
        return
    for path in sorted(path for path in draft.rglob("*") if path.is_file()):
        target = out / path.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
