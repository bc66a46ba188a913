"""The image files that a person names: files, and folders of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.artifacts.kept_answers import KeptAnswers, is_kept_folder
from samif.errors import DataError
from samif.io.image_formats import is_image_name

OVERLAY = ".overlay.jpg"
"""End of the names of images that `samif predict` draws."""

SUBFOLDER = "sub-folder"
"""Why a sub-folder is passed over."""


@dataclass(frozen=True)
class ImageFile:
    """An image file.

    Attributes:
        name: its path relative to the folder that was named, with forward slashes.
        named: whether a person named the file itself, not its folder.
    """

    path: Path
    name: str
    named: bool


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was passed over, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundImages:
    """Image files in order, and what was passed over."""

    images: tuple[ImageFile, ...]
    skipped: tuple[Skipped, ...]

    @property
    def paths(self) -> list[Path]:
        return [image.path for image in self.images]


def find_images(places: Sequence[Path], recursive: bool = False) -> FoundImages:
    """Image files among paths; a folder stands for the images in it, by the extensions of formats that can be read.

    Hidden files, among them the `._*` files that macOS writes beside images on other file systems, are passed over, and
    so are the overlays of an earlier prediction. A folder of `samif serve --keep` stands for the images in it.

    Args:
        recursive: also take the images in sub-folders.

    Raises:
        DataError: a path does not exist or cannot be read, or there is no image at all.
    """
    images: list[ImageFile] = []
    skipped: list[Skipped] = []
    for place in places:
        if place.is_dir():
            place = KeptAnswers(place).images if is_kept_folder(place) else place
            _search(place, recursive, images, skipped)
        elif place.exists():
            images.append(ImageFile(place, place.name, True))
        else:
            raise DataError(f"{place} does not exist; give images or folders of images")
    if not images:
        nested = any(item.reason == SUBFOLDER for item in skipped)
        hint = "give --recursive to look into sub-folders, or another folder" if nested else "give another folder"
        raise DataError(f"no image in {', '.join(map(str, places))}; {hint}")
    return FoundImages(tuple(images), tuple(skipped))


def _search(place: Path, recursive: bool, images: list[ImageFile], skipped: list[Skipped]) -> None:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; correct its permissions")

    for directory, folders, names in os.walk(place, onerror=refuse):
        folder = Path(directory)
        hidden = [name for name in folders if name.startswith(".")]
        nested = sorted(set(folders) - set(hidden))
        skipped += [Skipped(folder / name, "hidden") for name in sorted(hidden)]
        if not recursive:
            skipped += [Skipped(folder / name, SUBFOLDER) for name in nested]
        folders[:] = nested if recursive else []
        for name in sorted(names):
            path = folder / name
            if reason := _reason(path):
                skipped.append(Skipped(path, reason))
            else:
                images.append(ImageFile(path, path.relative_to(place).as_posix(), False))


def _reason(path: Path) -> str | None:
    """Why a file in a folder is passed over; None for an image."""
    if path.name.startswith("."):
        return "hidden"
    if path.name.endswith(OVERLAY):
        return "overlay of an earlier prediction"
    if not is_image_name(path.name):
        return "no image by the extension"
    if not path.is_file():
        return "link to nothing" if path.is_symlink() and not path.exists() else "no file"
    return None
