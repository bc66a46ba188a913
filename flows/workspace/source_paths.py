"""Where the images and annotations that params.yaml names lie. A path inside the workspace is relative to it, so that
it is true in every clone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.workspace.data_state import dvc_file_of
from flows.workspace.layout import Layout
from samif.config import CocoSource, Params
from samif.errors import ConfigError, ObjectMissing


def source_at(root: Path, source: CocoSource) -> CocoSource:
    """The source with whole paths; relative ones are those of the workspace `root`, wherever the command runs."""
    return CocoSource(images=str(root / source.images), annotations=str(root / source.annotations))


def written(root: Path, source: CocoSource) -> CocoSource:
    """The source as params.yaml names it: relative to the workspace inside it, whole paths elsewhere.

    Args:
        root: the workspace.
        source: paths relative to the current directory.

    Raises:
        ConfigError: the folder of images does not exist, or it is the workspace's own folder or around it.
    """
    images = Path(source.images)
    if not images.is_dir():
        raise ConfigError(f"{images.absolute()} is not a folder; give the folder that the images lie in")
    if root.resolve().is_relative_to(images.resolve()):
        raise ConfigError(
            f"the workspace {root} lies in its folder of images {images.absolute()}, so that its own files would be "
            "taken for data; put the images into a folder of their own, or make the workspace outside"
        )
    return CocoSource(images=_written(root, images), annotations=_written(root, Path(source.annotations)))


def _written(root: Path, path: Path) -> str:
    whole = Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()
    for place, base in ((whole, root.absolute()), (whole.parent.resolve() / whole.name, root.resolve())):
        if place.is_relative_to(base):
            return place.relative_to(base).as_posix()
    return str(whole)


def check_sources(layout: Layout, params: Params) -> list[str]:
    """Refuse sources that are not there, before anything runs; tracked data that are not checked out are DVC's matter.

    Returns:
        Sentences about sources that lie in another copy of this workspace, such as the one that it was cloned from.

    Raises:
        ObjectMissing: images or annotations are not where params.yaml says.
        ConfigError: they are taken from another copy of the workspace, though this one has its own.
    """
    notes = []
    for key, path in _places(params):
        here = layout.root / path
        if not here.exists() and dvc_file_of(layout, path) is None:
            where = "" if Path(path).is_absolute() else f" (that is {here})"
            raise ObjectMissing(
                f"'{key}' in {layout.params} is {path}{where}, which does not exist; put the data there, or correct "
                "the path, which may be relative to the workspace"
            )
        other = _other_copy(layout, params, here)
        if other is None:
            continue
        copy, own = other
        if own.exists():
            raise ConfigError(
                f"'{key}' in {layout.params} is {here}, which belongs to another copy of this workspace ({copy}), but "
                f"this one has its own at {own}; write {_written(layout.root, own)} there"
            )
        notes.append(f"'{key}' is {here}, which belongs to another copy of this workspace ({copy})")
    return notes


def _places(params: Params) -> Iterator[tuple[str, str]]:
    """Key of params.yaml -> path."""
    sources = {"dataset.train": params.dataset.train, "dataset.val": params.dataset.val}
    sources |= {f"sessions.{name}.source": session.source for name, session in params.sessions.items()}
    for key, source in sources.items():
        if source is not None:
            yield f"{key}.images", source.images
            yield f"{key}.annotations", source.annotations


def _other_copy(layout: Layout, params: Params, path: Path) -> tuple[Path, Path] | None:
    """Another copy of this workspace that a path lies in, or in whose git repository it lies, and where that path is in
    this one."""
    if path.is_relative_to(layout.root):
        return None
    mine = next((place for place in (layout.root, *layout.root.parents) if (place / ".git").exists()), None)
    for place in path.parents:
        candidates = [(place, layout.root)]
        if mine is not None and (place / ".git").exists():
            candidates.append((place / layout.root.relative_to(mine), mine))
        for copy, base in candidates:
            if copy.resolve() != layout.root.resolve() and _is_copy(copy / layout.params.name, params):
                return copy, base / path.relative_to(place)
    return None


def _is_copy(file: Path, params: Params) -> bool:
    try:
        found = YAML(typ="safe").load(file.read_bytes())
    except (OSError, ValueError, YAMLError):
        return False
    same = isinstance(found, dict) and found.get("line") == params.line
    return same and found.get("workspace") == params.workspace
