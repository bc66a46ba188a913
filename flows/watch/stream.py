"""The images that a camera writes to a folder or that a service answered, and the observer that the live version is for
them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from flows.artifacts.kept_answers import KeptAnswers, is_kept_folder
from flows.inference.predict import load_segmenter
from flows.runtime.device import device_here
from flows.watch.records import FileIdentity
from samif.config import Params
from samif.dataset.images import read_image
from samif.errors import DataError
from samif.io.image_formats import is_image_name

if TYPE_CHECKING:
    from samif.inference.load import ModelFiles
    from samif.watch.observe import Observation

INCOMPLETE_SECONDS = 60.0
"""A file that was modified this recently and cannot be read may still be being written."""


class StreamObserver:
    """Observes image files with a version.

    Raises:
        SamifError: the version's encoder is missing, or is not the one that it was trained with.
    """

    def __init__(self, bundle: ModelFiles, params: Params) -> None:
        self._segmenter = load_segmenter(bundle, params, device=device_here())

    def observe(self, path: Path) -> Observation:
        """Observe an image file.

        Raises:
            ImageError: the file cannot be used.
        """
        from samif.watch.observe import observe_image

        return observe_image(self._segmenter, read_image(path))


def new_files(folder: Path, known: Collection[FileIdentity]) -> list[FileIdentity]:
    """Image files in a folder and its subfolders that are not in `known`, oldest first; an overwritten file is new.

    Of a folder of `samif serve --keep`, only images that were drawn by chance: those that were kept because something
    in them was unknown or uncertain would raise alarms about an ordinary stream.

    Raises:
        DataError: there is no such folder, or it cannot be read.
        IntegrityError: an answer in it is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder that the camera writes to")

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; correct its permissions")

    kept = KeptAnswers(folder) if is_kept_folder(folder) else None
    found = []
    for directory, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            if name.startswith(".") or not is_image_name(name):
                continue
            path = Path(directory) / name
            try:
                stat = path.stat()
            except OSError:  # deleted meanwhile, or a dangling link
                continue
            file = FileIdentity(name=path.relative_to(folder).as_posix(), size=stat.st_size, modified=stat.st_mtime_ns)
            if file not in known and (kept is None or _is_drawn(kept, path)):
                found.append(file)
    return sorted(found, key=lambda file: (file.modified, file.name))


def _is_drawn(kept: KeptAnswers, path: Path) -> bool:
    """Whether an image was drawn by chance; False as long as its answer is not written."""
    answer = kept.answer(path.name) if path.parent == kept.images else None
    return answer is not None and "share" in answer.reasons


def may_be_incomplete(file: FileIdentity) -> bool:
    """Whether a file was modified so recently that it may still be being written."""
    return time.time() - file.modified / 1e9 < INCOMPLETE_SECONDS
