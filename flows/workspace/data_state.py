"""The state of the data that a run of a workspace reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from flows.runtime.remote_files import is_remote, local_path
from flows.workspace.file_digests import file_digests
from flows.workspace.layout import Layout
from samif.config import CocoSource, Params, digest

_CACHE = "file_digests.db"
_NOT_DATA = frozenset({".git", ".dvc", ".samif"})


def sources_of(params: Params) -> list[CocoSource]:
    """Every folder of images with its annotations that a run reads."""
    own = [source for source in (params.dataset.train, params.dataset.val) if source is not None]
    return own + [session.source for session in params.sessions.values() if session.source is not None]


def checkpoints_of(params: Params) -> dict[str, str]:
    """Key of params.yaml -> the path or address of a checkpoint there."""
    semantic = params.semantic.checkpoint if params.semantic else None
    found = {"encoder.checkpoint": params.encoder.checkpoint, "semantic.checkpoint": semantic}
    return {key: checkpoint for key, checkpoint in found.items() if checkpoint}


def dvc_file_of(layout: Layout, path: str) -> Path | None:
    """The .dvc file in the workspace whose output is `path` or a folder around it; none where `path` is not tracked."""
    inside = Path(path)
    if inside.is_absolute() or ".." in inside.parts:
        return None
    files = (layout.root / f"{part}.dvc" for part in (inside, *inside.parents) if part.name)
    return next((file for file in files if file.is_file()), None)


def data_sha256(layout: Layout, params: Params) -> str:
    """SHA-256 over names and content of everything that a run reads besides params.yaml: annotation files, all files
    of the image folders, and checkpoints that are files on this machine.

    Of tracked data that are not checked out, the .dvc file counts. Files that have not changed since the last call are
    not read (`.samif/file_digests.db`).

    Raises:
        DataError: a file cannot be read.
    """
    places = {path for source in sources_of(params) for path in (source.images, source.annotations)}
    places |= {str(local_path(uri)) for uri in checkpoints_of(params).values() if not is_remote(uri)}
    files = {place: _files(layout, place) for place in sorted(places)}
    read = file_digests([path for named in files.values() for path in named.values()], layout.state / _CACHE)
    return digest(
        {place: {name: read[path] for name, path in named.items() if path in read} for place, named in files.items()}
    )


def _files(layout: Layout, place: str) -> dict[str, Path]:
    """Name within `place` -> file; empty where there is nothing, which is for the run to refuse."""
    path = layout.root / place
    if path.is_dir():
        return {_text(file.relative_to(path)): file for file in _walk(path)}
    if path.is_file():
        return {"": path}
    tracked = dvc_file_of(layout, place)
    return {tracked.name: tracked} if tracked is not None else {}


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below, links followed; a folder that links lead back to counts once."""
    seen: set[str] = set()
    for here, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if name not in _NOT_DATA)
        yield from (Path(here) / name for name in names)


def _text(name: Path) -> str:
    """A file name need not be valid UTF-8."""
    return name.as_posix().encode("utf-8", "backslashreplace").decode()
