"""Images that a camera brings into a folder, and what the live version sees in each."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from flows.inference.predict import SUFFIXES, load_segmenter
from flows.runtime.device import device_here
from flows.watch.records import FileIdentity
from samif.config import Params
from samif.dataset.images import read_image
from samif.errors import SamifError

if TYPE_CHECKING:
    from samif.inference.load import ModelFiles
    from samif.watch.observe import Observation

SETTLING_SECONDS = 60.0
"""A file that changed this recently and cannot be read may still be on its way."""


class Eye:
    """The live version as it looks at image files.

    Raises:
        SamifError: its encoder cannot be had, or is not the one that it was made with.
    """

    def __init__(self, bundle: ModelFiles, params: Params) -> None:
        self._segmenter = load_segmenter(bundle, params, device=device_here())

    def see(self, path: Path) -> Observation:
        """What the version finds in an image file.

        Raises:
            ImageError: the file cannot be used.
        """
        from samif.watch.observe import see

        return see(self._segmenter, read_image(path))


def arrived(folder: Path, seen: Collection[FileIdentity]) -> list[FileIdentity]:
    """Image files in a folder and the folders below it that were not seen, oldest first.

    A file that was written anew is another image.

    Raises:
        SamifError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise SamifError(f"{folder} is no folder; give the folder that the camera writes to")

    def refuse(error: OSError) -> None:
        raise SamifError(f"cannot read {error.filename}: {error.strerror}; mend its permissions")

    found = []
    for place, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            path = Path(place) / name
            try:
                stat = path.stat()
            except OSError:  # gone again, or a link to nowhere
                continue
            file = FileIdentity(name=path.relative_to(folder).as_posix(), size=stat.st_size, modified=stat.st_mtime_ns)
            if file not in seen:
                found.append(file)
    return sorted(found, key=lambda file: (file.modified, file.name))


def is_settling(file: FileIdentity) -> bool:
    """Whether a file changed so recently that it may not be whole yet."""
    return time.time() - file.modified / 1e9 < SETTLING_SECONDS
