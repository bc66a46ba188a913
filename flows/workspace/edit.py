"""Add or remove a session: the changes of params.yaml that a command makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from flows.workspace.class_list import resolved
from flows.workspace.layout import Layout
from flows.workspace.lock import exclusive
from flows.workspace.params_edit import with_session, with_value, without_session
from flows.workspace.shots import Available, available, count_objects
from flows.workspace.source_paths import written
from samif.config import BASE, CocoSource, Params, ReadRules, SessionParams, ShotSource, load_params
from samif.errors import ConfigError
from samif.io import files


def add_session(
    root: Path,
    name: str,
    classes: Sequence[str] | str,
    shots: int = 10,
    seed: int = 0,
    source: CocoSource | None = None,
) -> Params:
    """Add a session at the end of the chain in params.yaml; comments and order of the file stay.

    Args:
        classes: its new classes, or the text of a list of them (see `class_list.class_names`).
        source: images and labels of the session's own; without, its shots come from the training images.

    Raises:
        SamifError: the session exists, a class is a base class, is in another session, is not in the dataset or has
            fewer objects than `shots`, or a run is under way; the file is then as it was.
    """
    layout = Layout(root)
    with exclusive(root):
        params, after = _before(layout, name)
        pinned = None
        if source is None:
            found = available(layout, params)
        else:
            pinned, found = _pin(layout, source, params.dataset)
        classes = resolved(classes, {*found.counts, *found.held_out, *params.dataset.base_classes})
        for cls in classes:
            if cls in params.dataset.base_classes:
                raise ConfigError(
                    f"class '{cls}' is a base class of {layout.params}: the classifier knows it from the start, and "
                    "the base stays as it was made; start a new workspace to learn it in a session instead"
                )
        found.check(name, classes, shots)
        session = make_session(name, after, classes, shots, seed, pinned)
        return replace_params(layout.params, with_session(layout.params.read_text(encoding="utf-8"), name, session))


def add_background(root: Path, name: str, source: CocoSource) -> int:
    """Add a session that teaches what is none of the classes: every object labelled in `source`.

    Returns:
        How many those are.

    Raises:
        SamifError: the session exists, `source` cannot be used or labels nothing, or a run is under way.
    """
    layout = Layout(root)
    with exclusive(root):
        params, after = _before(layout, name)
        pinned, found = _pin(layout, source, params.dataset)
        objects = found.counts.total()
        if not objects:
            raise ConfigError(f"{pinned.annotations} labels nothing; outline what was wrongly named, under any class")
        session = SessionParams(after=after, source=pinned, background=True)
        replace_params(layout.params, with_session(layout.params.read_text(encoding="utf-8"), name, session))
        return objects


def _before(layout: Layout, name: str) -> tuple[Params, str]:
    """The params, and what a new session of this name would come after."""
    params = load_params(layout.params)
    if name in params.sessions:
        raise ConfigError(f"there is already a session '{name}' in {layout.params}; choose another name")
    return params, next(reversed(params.sessions), BASE)


def remove_session(root: Path, name: str) -> Params:
    """Remove the last session from params.yaml; its results stay in DVC's cache, so adding it again is quick.

    Raises:
        SamifError: there is no such session, others stand on it, or a run is under way.
    """
    layout = Layout(root)
    with exclusive(root):
        names = list(load_params(layout.params).sessions)
        if name not in names:
            raise ConfigError(f"there is no session '{name}' in {layout.params}; it has {', '.join(names) or 'none'}")
        if name != names[-1]:
            later = names[names.index(name) + 1 :]
            raise ConfigError(
                f"session '{name}' cannot go: {', '.join(later)} stand{'s' if len(later) == 1 else ''} on it; "
                f"remove '{names[-1]}' first"
            )
        return replace_params(layout.params, without_session(layout.params.read_text(encoding="utf-8"), name))


def set_value(root: Path, section: str, key: str, value: float) -> Params:
    """Change one number of params.yaml; every other byte of the file stays.

    Raises:
        SamifError: the value is not allowed, or a run is under way.
    """
    layout = Layout(root)
    with exclusive(root):
        text = layout.params.read_text(encoding="utf-8")
        return replace_params(layout.params, with_value(text, section, key, value))


def _pin(layout: Layout, source: CocoSource, rules: ReadRules) -> tuple[ShotSource, Available]:
    """Read and check a session's own images; their digest and their objects per class."""
    from samif.dataset.check import raise_on_errors
    from samif.dataset.coco import read_coco

    named = written(layout.root, source)
    dataset, findings = read_coco(Path(source.images), Path(source.annotations), rules)
    raise_on_errors(findings)
    pinned = ShotSource(images=named.images, annotations=named.annotations, digest=dataset.digest)
    return pinned, Available(count_objects(dataset), Counter(), Path(source.annotations))


def make_session(
    name: str, after: str, classes: Sequence[str], shots: int, seed: int, source: ShotSource | None = None
) -> SessionParams:
    try:
        return SessionParams(after=after, classes=list(classes), shots=shots, seed=seed, source=source)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"session '{name}': {first['loc'][0]} is {first['input']!r}; {first['msg'].lower()}"
        ) from None


def replace_params(path: Path, text: str) -> Params:
    """Check the whole text as parameters, then put it in the place of `path`."""
    with files.written(path) as draft:
        draft.write_text(text, encoding="utf-8")
        try:
            return load_params(draft)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(draft), str(path))) from None
