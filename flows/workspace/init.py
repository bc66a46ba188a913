"""Make a workspace: params.yaml, dvc.yaml and the settings of DVC, all of them or nothing."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from flows.runtime.progress import say
from flows.runtime.system_errors import system_error
from flows.workspace.class_list import resolved
from flows.workspace.dvc_yaml import launcher_text, render_pipeline
from flows.workspace.edit import make_session, replace_params
from flows.workspace.findings import say_findings
from flows.workspace.layout import Layout
from flows.workspace.params_edit import new_text
from flows.workspace.shots import Available, after_holdout, count_objects, read_labels
from flows.workspace.source_paths import written
from samif.config import (
    BASE,
    RESERVED_CLASSES,
    SHIPPED,
    CocoSource,
    DataProtocol,
    DatasetParams,
    EncoderParams,
    Params,
    ReadRules,
    SessionParams,
)
from samif.errors import ConfigError, ObjectMissing

if TYPE_CHECKING:
    from samif.dataset.model import Dataset

_DVC_CONFIG = """\
[core]
{no_scm}    analytics = False
    check_update = False
[cache]
    type = "reflink,hardlink,symlink,copy"
"""

_DVC_IGNORE = "# DVC looks for pipelines in every folder but these\n/.samif\n/reports\n.gitignore\n.git\n"

PHOTO_SIZE = 512
"""Longer image side of `photo` in pixels; reading it from the encoder would import torch."""

_GIT_IGNORE = "/artifacts/\n/reports/\n/.samif/\n/.dvc/cache/\n/.dvc/tmp/\n/.dvc/config.local\n"


def init_workspace(
    root: Path,
    train: CocoSource,
    val: CocoSource | None,
    sessions: Sequence[tuple[str, Sequence[str] | str]],
    *,
    shots: int = 10,
    seed: int = 0,
    encoder: str = "photo",
    checkpoint: str | None = None,
    checkpoint_sha256: str | None = None,
    line: str | None = None,
    base: Sequence[str] | None = None,
    protocol: DataProtocol | None = None,
    labels_on: Literal["auto", "upright", "stored"] = "auto",
) -> Params:
    """Make a workspace for somebody's own line; the images stay where they are.

    The base classes are written out as a list.

    Args:
        root: folder of the workspace; made if missing. Files in it that are not a workspace's are left alone.
        train: images and COCO instance file to learn from; paths relative to the current directory are fine.
        val: the same for validation; None holds a part of the training images out.
        sessions: (name, classes) in the order in which they build on each other; classes may be the text of a list (see
            `class_list.class_names`).
        shots: objects per class of a session.
        line: the line's name in the registry; None derives it from the folder's name.
        base: the base classes; None takes every labelled class of the training file that is in no session.
        protocol: the published protocol, or the part of one, that the data are.
        labels_on: see `samif.config.ReadRules`.

    Raises:
        SamifError: `root` is a workspace already, a file is missing or not COCO, a class is unknown, is in two
            sessions or has fewer objects than `shots` outside the hold-out; nothing is left behind then.
    """
    root = root.absolute()
    layout = Layout(root)
    refuse_workspace(root)
    named, named_val = written(root, train), written(root, val) if val else None
    rules = ReadRules(labels_on=labels_on, crowds="auto" if protocol is None else "ignore")
    labelled, findings = read_labels(train, rules)
    notes = {"train": findings}
    counts = count_objects(labelled)
    place = Path(train.annotations)
    if val:
        notes["val"] = read_labels(val, rules)[1]
        found = Available(counts, Counter(), place)
    else:
        share, split_seed = (DatasetParams.model_fields[key].default for key in ("holdout", "seed"))
        found = after_holdout(labelled, share, split_seed, place)

    chain: dict[str, SessionParams] = {}
    after, taken = BASE, set[str]()
    for name, classes in sessions:
        if name in chain:
            raise ConfigError(f"session '{name}' is given twice; put its classes into one list")
        classes = resolved(classes, counts)
        found.check(name, classes, shots)
        chain[name] = make_session(name, after, classes, shots, seed)
        after = name
        taken |= set(classes)
    base = [c for c in counts if c not in taken and counts[c]] if base is None else list(base)
    for name in sorted(RESERVED_CLASSES & {*base, *taken}):
        raise ConfigError(
            f"a class may not be named '{name}': results use that word for what has no class; "
            f"rename it in {train.annotations}"
        )
    if not base:
        raise ConfigError(
            f"every labelled class of {train.annotations} is in a session, so nothing is left for the base classifier; "
            "leave at least one class out of the sessions"
        )
    small = _small_classes(labelled) if encoder == "photo" else []
    try:
        encoder_params = EncoderParams.model_validate(
            {
                "name": encoder,
                "checkpoint": _checkpoint(checkpoint),
                "sha256": checkpoint_sha256,
                # over twice as fast at a relative difference of 0.7 %; the small ones are fast enough as they are
                "precision": "float32" if encoder in SHIPPED else "bfloat16",
                "tiles": 2 if small else 1,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = {"name": "encoder", "sha256": "checkpoint SHA-256"}.get(str(first["loc"][0]), str(first["loc"][0]))
        raise ConfigError(f"the {key} {first['input']!r} does not fit: {first['msg'].lower()}") from None
    name, own = line or _line_name(root.name), secrets.token_hex(8)
    params = _put(layout, new_text(name, base, encoder_params, chain, named, named_val, protocol, own, labels_on))
    for split, found_there in notes.items():
        say_findings(split, found_there)
    if small:
        names = ", ".join(small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
        say(f"encoder.tiles: 2, because objects of {names} are small; embedding takes 5 times as long as without tiles")
    return params


def _small_classes(labelled: Dataset) -> list[str]:
    """The classes for which `photo` takes tiles."""
    from samif.dataset.object_sizes import small_classes

    return small_classes(labelled, PHOTO_SIZE)


def refuse_workspace(root: Path) -> None:
    """Refuse a folder that is a workspace, whole or in part.

    Raises:
        SamifError: it has a file that only workspaces have.
    """
    layout = Layout(root)
    for mine in (layout.params, layout.pipeline, layout.lock, root / ".dvc"):
        if mine.exists():
            raise ConfigError(f"{root} already has a {mine.name}; give another folder, or change params.yaml there")


def _checkpoint(address: str | None) -> str | None:
    """A file path is made absolute, because the workspace lies elsewhere; an address with a scheme stays."""
    if address is None or "://" in address:
        return address
    if not Path(address).is_file():
        raise ObjectMissing(f"the checkpoint {address} does not exist; give a file, or an https:// or s3:// address")
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
        known = system_error(error)
        raise known or ConfigError(f"cannot make a workspace in {layout.root}: {error.strerror}") from None
    try:
        (build / ".dvc").mkdir()
        # At the root of a git repository DVC works with git (`dvc exp`, `dvc diff`); elsewhere it needs none.
        no_scm = "" if (layout.root / ".git").exists() else "    no_scm = True\n"
        (build / ".dvc" / "config").write_text(_DVC_CONFIG.format(no_scm=no_scm), encoding="utf-8")
        (build / ".dvc" / "samif").write_text(launcher_text(), encoding="utf-8")
        (build / ".dvcignore").write_text(_DVC_IGNORE, encoding="utf-8")
        if not (layout.root / ".gitignore").exists():
            (build / ".gitignore").write_text(_GIT_IGNORE, encoding="utf-8")
        params = replace_params(build / "params.yaml", text)
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
