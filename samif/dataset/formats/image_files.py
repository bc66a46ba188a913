"""The image files that labels name: where they are, and their sizes from their headers."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image

from samif.dataset.orientation import sizes_of
from samif.io.image_formats import formats_of, is_image_name

SIBLINGS = ("images", "imgs", "img", "image", "jpegimages")
"""Folders beside the one of the labels that are looked into for images."""


@dataclass(frozen=True)
class Found:
    """An image file, or None.

    Attributes:
        elsewhere: the labels name another place.
        count: of files that have the name, where none of them is the one that is meant.
    """

    path: Path | None
    elsewhere: bool = False
    count: int = 0


class ImageFinder:
    """Finds the image files that labels name.

    Args:
        folder: folder of the images if a person named it, else the one of the labels.
        given: whether a person named it: then images are looked for nowhere else.
    """

    def __init__(self, folder: Path, given: bool) -> None:
        self.folder = folder
        self.given = given

    def find(self, name: str, beside: Path) -> Found:
        """The image of a name in the labels, whose separators, drive, address and case may differ from the file's.

        Args:
            beside: folder that the name is relative to.
        """
        plain = _plain(name)
        if not PurePosixPath(plain).name:
            return Found(None)
        for place in (self.folder / plain, *(() if self.given else (beside / plain,))):
            path = Path(os.path.normpath(place))
            if path.is_file():
                return Found(path)
        parts = PurePosixPath(plain.lower()).parts
        best, same = 0, list[Path]()
        for path in self._by_name[parts[-1]]:
            depth = _common_end(parts, PurePosixPath(path.as_posix().lower()).parts)
            if depth >= best:
                same = [*(same if depth == best else ()), path]
                best = depth
        if len(same) != 1:
            return Found(None, count=len(same))
        return Found(same[0], elsewhere=best < len(parts))

    def of_stem(self, stem: str) -> Found:
        """The image whose name without extension is `stem`."""
        same = self._by_stem[stem.lower()]
        exact = [path for path in same if path.stem == stem]
        if len(exact or same) != 1:
            return Found(None, count=len(same))
        return Found((exact or same)[0])

    @cached_property
    def all(self) -> list[Path]:
        """All image files below the folder, and below the folders of images beside it if nobody named the folder."""
        folders = [self.folder]
        if not self.given and self.folder.parent != self.folder:
            near = sorted(self.folder.parent.iterdir())
            folders += [
                path for path in near if path.name.lower() in SIBLINGS and path.is_dir() and path != self.folder
            ]
        return [path for folder in folders for path in images_below(folder)]

    @cached_property
    def _by_name(self) -> defaultdict[str, list[Path]]:
        return _grouped(self.all, lambda path: path.name.lower())

    @cached_property
    def _by_stem(self) -> defaultdict[str, list[Path]]:
        return _grouped(self.all, lambda path: path.stem.lower())


def images_below(folder: Path) -> list[Path]:
    """Image files of a folder and its sub-folders, by their extension, hidden ones apart; sorted."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place) / n for n in sorted(names) if is_image_name(n) and not n.startswith(".")]
    return found


def sizes(path: Path) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(width, height) upright and as stored, by the header; None where it cannot be read."""
    try:
        with Image.open(path, formats=formats_of(path)) as image:
            return sizes_of(image)
    except Exception:  # decoders of damaged files raise a dozen kinds; the reader of COCO files says what is wrong
        return None


def _plain(name: str) -> str:
    """The path in a name: Windows separators, drives, addresses and Label Studio's `?d=` undone."""
    name = name.strip().replace("\\", "/")
    if "://" in name or name.startswith("/data/"):
        address = urlsplit(name)
        name = parse_qs(address.query).get("d", [unquote(address.path)])[0].replace("\\", "/")
    return name[2:].lstrip("/") if name[1:2] == ":" else name


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Number of last parts that two paths share."""
    number = 0
    for one, other in zip(reversed(a), reversed(b), strict=False):
        if one != other:
            break
        number += 1
    return number


def _grouped(paths: list[Path], key: Callable[[Path], str]) -> defaultdict[str, list[Path]]:
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups
