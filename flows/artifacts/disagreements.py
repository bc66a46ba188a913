"""Images on which champion and challenger of `samif serve --shadow` disagree: replicas write them, others read them.

    FOLDER/ID/image.png            the image
    FOLDER/ID/overlay.jpg          both answers side by side
    FOLDER/ID/disagreement.json    what each version found, written last

ID begins with the time of the answer (UTC), so that names sort by age. With several lines, each has FOLDER/NAME.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from flows.artifacts.kept_answers import Instance
from samif.errors import ObjectMissing
from samif.io.document import Document

Kind = Literal["renamed", "only_champion", "only_challenger"]
IMAGE, OVERLAY, RECORD = "image.png", "overlay.jpg", "disagreement.json"
_ID = re.compile(r"\d{8}T\d{12}-\d+")


class Side(BaseModel):
    """What a version, NAME/VERSION, found in the image."""

    version: str
    instances: tuple[Instance, ...]


class Difference(BaseModel):
    """An object that the versions name differently, with its box (x, y, width, height) in pixels of the image; no name
    where a version does not find it."""

    kind: Kind
    box: tuple[float, float, float, float]
    champion: str | None
    challenger: str | None


class DisagreementRecord(Document):
    """The answers of both versions to one image, and where they differ."""

    WHAT = "a record of a disagreement"
    REMEDY = "delete its folder"

    champion: Side
    challenger: Side
    disagreements: tuple[Difference, ...]

    def instance(self, difference: Difference) -> Instance | None:
        """The object of a difference: the champion's, or the challenger's where the champion has none."""
        side, name = self.champion, difference.champion
        if difference.kind == "only_challenger":
            side, name = self.challenger, difference.challenger
        return next((i for i in side.instances if tuple(i.bbox) == difference.box and i.label == name), None)


def sample_folders(folder: Path) -> list[Path]:
    """The folders of the images of disagreement in the folder of `--shadow-folder`, newest first."""
    found = [path.parent for pattern in (RECORD, f"*/{RECORD}") for path in folder.glob(f"*/{pattern}")]
    return sorted((path for path in found if _ID.fullmatch(path.name)), key=lambda path: path.name, reverse=True)


def read_disagreements(folder: Path) -> Iterator[tuple[Path, DisagreementRecord]]:
    """Folder and record of every image of disagreement, newest first. Those that a service removes meanwhile are left
    out.

    Raises:
        IntegrityError: a record is damaged.
    """
    for sample in sample_folders(folder):
        try:
            yield sample, DisagreementRecord.load(sample / RECORD)
        except ObjectMissing:
            continue
