"""Label files that a browser sends: one file, a folder file by file, or a ZIP archive of one."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastapi import UploadFile

from samif.errors import DataError

MOST_FILES = 20_000
MOST_BYTES = 500_000_000
"""Of the files in an archive, unpacked."""


def unpacked(uploads: Sequence[UploadFile], folder: Path) -> Path:
    """Write files to an empty folder, by their paths, and return the file or folder that holds the labels.

    Raises:
        DataError: a path leads out of the folder, or an archive cannot be read or is too large.
    """
    folder.mkdir()
    for upload in uploads:
        path = _within(folder, upload.filename or "labels")
        if path.suffix.lower() == ".zip":
            _unzip(upload, path)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            shutil.copyfileobj(upload.file, out)
    while len(found := [p for p in folder.iterdir() if p.name != "__MACOSX"]) == 1 and found[0].is_dir():
        if found[0].name.lower() in ("masks", "mask", "labels"):  # formats know these by their names
            break
        folder = found[0]
    return found[0] if len(found) == 1 and found[0].is_file() else folder


def _within(folder: Path, name: str) -> Path:
    """The path of a file of that name in a folder."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ":" in parts[0] or ".." in parts or "\0" in name:
        raise DataError(f"'{name}' is no name of a file within a folder; choose the folder of the labels again")
    return folder.joinpath(*parts)


def _unzip(upload: UploadFile, path: Path) -> None:
    """Unpack an archive beside the place of the archive."""
    try:
        with zipfile.ZipFile(upload.file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MOST_FILES or sum(member.file_size for member in members) > MOST_BYTES:
                raise DataError(
                    f"{path.name} holds more than {MOST_FILES} files or {MOST_BYTES // 10**6} MB; leave the images out"
                )
            for member in members:
                target = _within(path.parent, member.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path.name} cannot be unpacked ({error}); make the archive again") from None
