"""Add or remove a session: the changes of params.yaml that a command makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flows.workspace.findings import say_findings
from flows.workspace.layout import Layout
from flows.workspace.lock import exclusive
from flows.workspace.params_edit import with_session, without_session
from samif.config import BASE, CocoSource, Params, ReadRules, SessionParams, ShotSource, load_params
from samif.errors import ConfigError
from samif.io import files

if TYPE_CHECKING:
    from samif.dataset.model import Dataset


def add_session(
    root: Path,
    name: str,
    classes: Sequence[str],
    shots: int = 10,
    seed: int = 0,
    source: CocoSource | None = None,
) -> Params:
    """Add a session at the end of the chain in params.yaml; comments and order of the file stay.

    Args:
        source: images and labels of the session's own; without, its shots come from the training images.

    Raises:
        SamifError: the session exists, a class is a base class, is in another session, is not in the dataset or has
            fewer objects than `shots`, or a run is under way; the file is then as it was.
    """
    layout = Layout(root)
    with exclusive(root):
        params, after = _before(layout, name)
        for cls in classes:
            if cls in params.dataset.base_classes:
                raise ConfigError(
                    f"class '{cls}' is a base class of {layout.params}: the classifier knows it from the start, and "
                    "the base stays as it was made; start a new workspace to learn it in a session instead"
                )
        pinned = None
        if source is None:
            counts, place = _dataset_counts(layout, params)
        else:
            pinned, counts = _pin(absolute_source(source), params.dataset)
            place = Path(pinned.annotations)
        check_classes(name, classes, shots, counts, place)
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
        pinned, counts = _pin(absolute_source(source), params.dataset)
        objects = sum(counts.values())
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


def read_labels(source: CocoSource, rules: ReadRules | None = None, split: str = "") -> Dataset:
    """The labels of a COCO instance file. Only images are opened whose size the file does not say. With `split`, what
    was found is printed under that name. Images that are missing are left out, whatever the rules are: it is the
    first run that refuses them.

    Raises:
        SamifError: the file is missing or no COCO instance file, or its labels cannot be used.
    """
    from samif.dataset.check import raise_on_errors
    from samif.dataset.coco import read_coco

    rules = (rules or ReadRules()).model_copy(update={"broken_images": "quarantine"})
    dataset, findings = read_coco(Path(source.images), Path(source.annotations), rules, open_images=False)
    raise_on_errors(findings)
    if split:
        say_findings(split, findings)
    return dataset


def count_objects(dataset: Dataset) -> Counter[str]:
    """Objects (not crowds) per category, categories in the file's order, zeros included."""
    from samif.dataset.check import class_counts

    return Counter({name: objects for name, (objects, _) in class_counts(dataset).items()})


def _dataset_counts(layout: Layout, params: Params) -> tuple[Counter[str], Path]:
    """Objects per class that shots can come from: of the checked index once there is one, else of the source."""
    if layout.index("train").exists():
        from samif.dataset.model import Dataset

        return count_objects(Dataset.load(layout.index("train"), layout.root)), layout.index("train")
    if params.dataset.train is not None:
        return count_objects(read_labels(params.dataset.train, params.dataset)), Path(params.dataset.train.annotations)
    from samif.dataset.draw.parts import BASE_PARTS, NOVEL_PARTS

    # Nothing is drawn yet, so there is nothing to count; every part appears in many scenes.
    return Counter(dict.fromkeys((*BASE_PARTS, *NOVEL_PARTS), 10**6)), layout.drawn


def check_classes(name: str, classes: Sequence[str], shots: int, counts: Counter[str], source: Path) -> None:
    if not classes:
        raise ConfigError(f"session '{name}' has no class; give at least one")
    for cls in classes:
        if cls not in counts:
            known = ", ".join(list(counts)[:20]) + (", ..." if len(counts) > 20 else "")
            raise ConfigError(f"class '{cls}' of session '{name}' is not in {source}; it has {known}")
        if counts[cls] < shots:
            raise ConfigError(
                f"class '{cls}' of session '{name}' has {counts[cls]} objects in {source}, fewer than {shots} shots; "
                "label more images or ask for fewer shots"
            )


def _pin(source: CocoSource, rules: ReadRules) -> tuple[ShotSource, Counter[str]]:
    """Read and check a session's own images; their digest and their objects per class."""
    from samif.dataset.check import class_counts, raise_on_errors
    from samif.dataset.coco import read_coco

    dataset, findings = read_coco(Path(source.images), Path(source.annotations), rules)
    raise_on_errors(findings)
    counts = Counter({name: objects for name, (objects, _) in class_counts(dataset).items()})
    return ShotSource(images=source.images, annotations=source.annotations, digest=dataset.digest), counts


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


def absolute_source(source: CocoSource) -> CocoSource:
    images, annotations = Path(source.images).absolute(), Path(source.annotations).absolute()
    if not images.is_dir():
        raise ConfigError(f"{images} is not a folder; give the folder that the images lie in")
    return CocoSource(images=str(images), annotations=str(annotations))


def replace_params(path: Path, text: str) -> Params:
    """Check the whole text as parameters, then put it in the place of `path`."""
    with files.written(path) as draft:
        draft.write_text(text, encoding="utf-8")
        try:
            return load_params(draft)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(draft), str(path))) from None
