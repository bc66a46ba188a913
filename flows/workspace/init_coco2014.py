"""A workspace of the published COCO2014 protocol, or of a part of it: its two COCO files, its classes, its record."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.workspace.init import init_workspace, refuse_workspace
from samif.config import CocoSource, Params
from samif.dataset.coco2014 import BASE, NOVEL, PART, PROTOCOL, PUBLISHED, SESSION, Counts
from samif.dataset.coco2014_files import Parts, write_parts
from samif.errors import ConfigError, DataError
from samif.io import files

FOLDER = "coco2014"
"""Of the workspace: train.json, val.json and protocol.json, which says what they were made of."""

_FILES = ("train.json", "val.json", "protocol.json", ".gitignore")


@dataclass(frozen=True)
class Made:
    """A new workspace: its parameters, its data, and the classes that a part of COCO2014 has too few objects of."""

    params: Params
    parts: Parts
    without: tuple[str, ...]


def init_coco2014(
    workspace: Path,
    root: Path,
    *,
    test_ids: Path | None = None,
    partial: bool = False,
    shots: int = 10,
    seed: int = 0,
    encoder: str = "photo",
    checkpoint: str | None = None,
    checkpoint_sha256: str | None = None,
    line: str | None = None,
    published: Counts = PUBLISHED,
) -> Made:
    """Make a workspace with 60 base classes and one session of the 20 classes of Pascal VOC.

    Args:
        root: holds train2014/, val2014/ and annotations/; images stay there.
        test_ids: as in `write_parts`.
        partial: take what there is of COCO2014; base classes without an object and novel ones with fewer than `shots`
            are then left out, and objects of theirs count as unknown.
        published: the counts that hold without `partial`.

    Raises:
        SamifError: `workspace` is one already, or the files are not COCO2014's; nothing is left behind then.
    """
    workspace, root = workspace.absolute(), root.absolute()
    refuse_workspace(workspace)
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; give the one that holds train2014, val2014 and annotations")
    folder = workspace / FOLDER
    if workspace.resolve().is_relative_to(root.resolve()) or root.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{folder} and the images of {root} would lie in one folder; make the workspace elsewhere")
    made = next((path for path in reversed([folder, *folder.parents]) if not path.exists()), None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = write_parts(root, test_ids, folder, None if partial else published)
        base = [name for name in BASE if parts.train.objects[name] or not partial]
        if not base:
            raise DataError(f"{root} has no object of a base class to learn from; take images of more classes")
        novel = [name for name in NOVEL if parts.train.objects[name] >= shots or not partial]
        without = tuple(name for name in (*BASE, *NOVEL) if name not in {*base, *novel})
        files.commit(folder / "protocol.json", _record(parts, partial, without).encode())
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # half a gigabyte that can be made again
        train, val = (CocoSource(images=str(root), annotations=str(folder / name)) for name in _FILES[:2])
        params = init_workspace(
            workspace, train, val, [(SESSION, novel)] if novel else [], shots=shots, seed=seed, encoder=encoder,
            checkpoint=checkpoint, checkpoint_sha256=checkpoint_sha256, line=line, base=base,
            protocol=PART if partial else PROTOCOL,
        )  # fmt: skip
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        for name in _FILES:  # the folder was there before, with whatever else it holds
            (folder / name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"cannot write in {folder}: {error.strerror}; check its permissions and space") from None
        raise
    return Made(params, parts, without)


def _record(parts: Parts, partial: bool, without: tuple[str, ...]) -> str:
    content: dict[str, Any] = {
        "schema": 1,
        "protocol": PART if partial else PROTOCOL,
        "published": not partial,
        "test_ids_from": str(parts.test_ids_from),
        "train": {"images": parts.train.images, "labels": parts.train.labels},
        "val": {"images": parts.test.images, "labels": parts.test.labels},
        "images_not_there": parts.absent,
        "classes_left_out": list(without),
        "labels_without_a_pixel": [vars(label) for label in parts.left_out],
    }
    return json.dumps(content, indent=1) + "\n"
