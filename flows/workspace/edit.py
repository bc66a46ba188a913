"""Make a workspace, and add or remove a session: every change of params.yaml that a command makes."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.workspace.dvc_yaml import render_pipeline
from flows.workspace.layout import Layout
from flows.workspace.lock import exclusive
from flows.workspace.params_edit import new_text, with_session, without_session
from samif.config import (
    BASE,
    SHIPPED,
    CocoSource,
    DataProtocol,
    EncoderParams,
    Params,
    SessionParams,
    ShotSource,
    load_params,
)
from samif.errors import SamifError
from samif.io import files

_DVC_CONFIG = """\
[core]
{no_scm}    analytics = False
    check_update = False
[cache]
    type = "reflink,hardlink,symlink,copy"
"""
_DVC_IGNORE = "# DVC looks for pipelines in every folder but these\n/.samif\n/reports\n.gitignore\n.git\n"
_GIT_IGNORE = "/artifacts/\n/reports/\n/.samif/\n/.dvc/cache/\n/.dvc/tmp/\n/.dvc/config.local\n"


def init_workspace(
    root: Path,
    train: CocoSource,
    val: CocoSource | None,
    sessions: Sequence[tuple[str, Sequence[str]]],
    *,
    shots: int = 10,
    seed: int = 0,
    encoder: str = "photo",
    checkpoint: str | None = None,
    checkpoint_sha256: str | None = None,
    line: str | None = None,
    base: Sequence[str] | None = None,
    protocol: DataProtocol | None = None,
) -> Params:
    """Make a workspace for somebody's own line; the images stay where they are.

    The base classes are written out as a list.

    Args:
        root: folder of the workspace; made if missing. Files in it that are not a workspace's are left alone.
        train: images and COCO instance file to learn from; paths relative to the current directory are fine.
        val: the same for validation; None holds a part of the training images out.
        sessions: (name, classes) in the order in which they build on each other.
        shots: objects per class of a session.
        line: the line's name in the registry; None derives it from the folder's name.
        base: the base classes; None takes every class of the training file that is in no session.
        protocol: the published protocol, or the part of one, that the data are.

    Raises:
        SamifError: `root` is a workspace already, a file is missing or not COCO, a class is unknown, is in two
            sessions or has fewer objects than `shots`; nothing is left behind then.
    """
    root = root.absolute()
    layout = Layout(root)
    refuse_workspace(root)
    train = _absolute(train)
    val = _absolute(val) if val else None
    counts = count_objects(Path(train.annotations))
    if val:
        count_objects(Path(val.annotations))

    chain: dict[str, SessionParams] = {}
    after, taken = BASE, set[str]()
    for name, classes in sessions:
        if name in chain:
            raise SamifError(f"session '{name}' is given twice; put its classes into one list")
        _check_classes(name, classes, shots, counts, Path(train.annotations))
        chain[name] = _session(name, after, classes, shots, seed)
        after = name
        taken |= set(classes)
    base = [c for c in counts if c not in taken] if base is None else list(base)
    if not base:
        raise SamifError(
            f"every class of {train.annotations} is in a session, so nothing is left for the base classifier; "
            "leave at least one class out of the sessions"
        )
    try:
        encoder_params = EncoderParams.model_validate(
            {
                "name": encoder,
                "checkpoint": _checkpoint(checkpoint),
                "sha256": checkpoint_sha256,
                # over twice as fast at a relative difference of 0.7 %; the small ones are fast enough as they are
                "precision": "float32" if encoder in SHIPPED else "bfloat16",
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = {"name": "encoder", "sha256": "checkpoint SHA-256"}.get(str(first["loc"][0]), str(first["loc"][0]))
        raise SamifError(f"the {key} {first['input']!r} does not fit: {first['msg'].lower()}") from None
    name, own = line or _line_name(root.name), secrets.token_hex(8)
    return _put(layout, new_text(name, base, encoder_params, chain, train, val, protocol, own))


def refuse_workspace(root: Path) -> None:
    """Refuse a folder that is a workspace, whole or in part.

    Raises:
        SamifError: it has a file that only workspaces have.
    """
    layout = Layout(root)
    for mine in (layout.params, layout.pipeline, layout.lock, root / ".dvc"):
        if mine.exists():
            raise SamifError(f"{root} already has a {mine.name}; give another folder, or change params.yaml there")


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
                raise SamifError(
                    f"class '{cls}' is a base class of {layout.params}: the classifier knows it from the start, and "
                    "the base stays as it was made; start a new workspace to learn it in a session instead"
                )
        pinned = None
        if source is None:
            counts, place = _dataset_counts(layout, params)
        else:
            pinned, counts = _pin(_absolute(source))
            place = Path(pinned.annotations)
        _check_classes(name, classes, shots, counts, place)
        session = _session(name, after, classes, shots, seed, pinned)
        return _replace(layout.params, with_session(layout.params.read_text(encoding="utf-8"), name, session))


def add_background(root: Path, name: str, source: CocoSource) -> int:
    """Add a session that teaches what is none of the classes: every object labelled in `source`.

    Returns:
        How many those are.

    Raises:
        SamifError: the session exists, `source` cannot be used or labels nothing, or a run is under way.
    """
    layout = Layout(root)
    with exclusive(root):
        _, after = _before(layout, name)
        pinned, counts = _pin(_absolute(source))
        objects = sum(counts.values())
        if not objects:
            raise SamifError(f"{pinned.annotations} labels nothing; outline what was wrongly named, under any class")
        session = SessionParams(after=after, source=pinned, background=True)
        _replace(layout.params, with_session(layout.params.read_text(encoding="utf-8"), name, session))
        return objects


def _before(layout: Layout, name: str) -> tuple[Params, str]:
    """The params, and what a new session of this name would come after."""
    params = load_params(layout.params)
    if name in params.sessions:
        raise SamifError(f"there is already a session '{name}' in {layout.params}; choose another name")
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
            raise SamifError(f"there is no session '{name}' in {layout.params}; it has {', '.join(names) or 'none'}")
        if name != names[-1]:
            later = names[names.index(name) + 1 :]
            raise SamifError(
                f"session '{name}' cannot go: {', '.join(later)} stand{'s' if len(later) == 1 else ''} on it; "
                f"remove '{names[-1]}' first"
            )
        return _replace(layout.params, without_session(layout.params.read_text(encoding="utf-8"), name))


def count_objects(annotations: Path) -> Counter[str]:
    """Objects (not crowds) per category of a COCO instance file, categories in the file's order, zeros included.

    Raises:
        SamifError: the file is missing, is not JSON, or has no `categories` and `annotations`.
    """
    try:
        raw: Any = json.loads(annotations.read_bytes())
    except OSError as error:
        raise SamifError(f"cannot read {annotations}: {error.strerror}; give a COCO instance file") from None
    except ValueError as error:
        raise SamifError(f"{annotations} is not JSON ({error}); give a COCO instance file") from None
    try:
        names = {c["id"]: str(c["name"]) for c in raw["categories"]}
        counts = Counter(dict.fromkeys(names.values(), 0))
        counts.update(names[a["category_id"]] for a in raw["annotations"] if not a.get("iscrowd"))
    except (KeyError, TypeError) as error:
        raise SamifError(
            f"{annotations} is not a COCO instance file ({error!r}); give one with images, categories and annotations"
        ) from None
    return counts


def _dataset_counts(layout: Layout, params: Params) -> tuple[Counter[str], Path]:
    """Objects per class that shots can come from: of the checked index once there is one, else of the source."""
    if layout.index("train").exists():
        return count_objects(layout.index("train")), layout.index("train")
    if params.dataset.train is not None:
        return count_objects(Path(params.dataset.train.annotations)), Path(params.dataset.train.annotations)
    from samif.dataset.draw.parts import BASE_PARTS, NOVEL_PARTS

    # Nothing is drawn yet, so there is nothing to count; every part appears in many scenes.
    return Counter(dict.fromkeys((*BASE_PARTS, *NOVEL_PARTS), 10**6)), layout.drawn


def _check_classes(name: str, classes: Sequence[str], shots: int, counts: Counter[str], source: Path) -> None:
    if not classes:
        raise SamifError(f"session '{name}' has no class; give at least one")
    for cls in classes:
        if cls not in counts:
            known = ", ".join(list(counts)[:20]) + (", ..." if len(counts) > 20 else "")
            raise SamifError(f"class '{cls}' of session '{name}' is not in {source}; it has {known}")
        if counts[cls] < shots:
            raise SamifError(
                f"class '{cls}' of session '{name}' has {counts[cls]} objects in {source}, fewer than {shots} shots; "
                "label more images or ask for fewer shots"
            )


def _pin(source: CocoSource) -> tuple[ShotSource, Counter[str]]:
    """Read and check a session's own images; their digest and their objects per class."""
    from samif.dataset.check import class_counts, raise_on_errors
    from samif.dataset.coco import read_coco

    dataset, findings = read_coco(Path(source.images), Path(source.annotations))
    raise_on_errors(findings)
    counts = Counter({name: objects for name, (objects, _) in class_counts(dataset).items()})
    return ShotSource(images=source.images, annotations=source.annotations, digest=dataset.digest), counts


def _session(
    name: str, after: str, classes: Sequence[str], shots: int, seed: int, source: ShotSource | None = None
) -> SessionParams:
    try:
        return SessionParams(after=after, classes=list(classes), shots=shots, seed=seed, source=source)
    except ValidationError as error:
        first = error.errors()[0]
        raise SamifError(f"session '{name}': {first['loc'][0]} is {first['input']!r}; {first['msg'].lower()}") from None


def _absolute(source: CocoSource) -> CocoSource:
    images, annotations = Path(source.images).absolute(), Path(source.annotations).absolute()
    if not images.is_dir():
        raise SamifError(f"{images} is not a folder; give the folder that the images lie in")
    return CocoSource(images=str(images), annotations=str(annotations))


def _checkpoint(address: str | None) -> str | None:
    """A file path is made absolute, because the workspace lies elsewhere; an address with a scheme stays."""
    if address is None or "://" in address:
        return address
    if not Path(address).is_file():
        raise SamifError(f"the checkpoint {address} does not exist; give a file, or an https:// or s3:// address")
    return str(Path(address).absolute())


def _line_name(folder: str) -> str:
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.lower()).strip("-_")[:63]
    return name or "line"


def _put(layout: Layout, text: str) -> Params:
    """Build everything beside, then move it in; params.yaml comes last, because it makes the folder a workspace."""
    made = not layout.root.exists()
    moved: list[Path] = []
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=".samif-init-", dir=layout.root))
    except OSError as error:
        raise SamifError(f"cannot make a workspace in {layout.root}: {error.strerror}") from None
    try:
        (build / ".dvc").mkdir()
        # At the root of a git repository DVC works with git (`dvc exp`, `dvc diff`); elsewhere it needs none.
        no_scm = "" if (layout.root / ".git").exists() else "    no_scm = True\n"
        (build / ".dvc" / "config").write_text(_DVC_CONFIG.format(no_scm=no_scm), encoding="utf-8")
        (build / ".dvcignore").write_text(_DVC_IGNORE, encoding="utf-8")
        if not (layout.root / ".gitignore").exists():
            (build / ".gitignore").write_text(_GIT_IGNORE, encoding="utf-8")
        params = _replace(build / "params.yaml", text)
        (build / "dvc.yaml").write_text(render_pipeline(params), encoding="utf-8")
        for entry in sorted(build.iterdir(), key=lambda path: path.name == "params.yaml"):
            target = layout.root / entry.name
            os.rename(entry, target)
            moved.append(target)
    except BaseException:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    finally:
        shutil.rmtree(build)
        if made and not any(layout.root.iterdir()):
            layout.root.rmdir()
    return params


def _replace(path: Path, text: str) -> Params:
    """Check the whole text as parameters, then put it in the place of `path`."""
    with files.written(path) as draft:
        draft.write_text(text, encoding="utf-8")
        try:
            return load_params(draft)
        except SamifError as error:
            raise SamifError(str(error).replace(str(draft), str(path))) from None
