"""The answers that `samif serve --keep` keeps with their images: a folder that replicas write and other commands read.

    FOLDER/kept.json           says what the folder is
    FOLDER/images/NAME.jpg     an image, byte for byte as it was sent
    FOLDER/answers/NAME.json   its answer, written after the image and removed before it

NAME begins with the time of the answer (UTC), so that names sort by age.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, Field

from samif.errors import ConfigError, ObjectMissing
from samif.io import files
from samif.io.document import Document

Reason = Literal["share", "unknown", "uncertain"]
"""Why an answer was kept: drawn by chance, an unknown object is in it, its names are uncertain."""

LOCK_SECONDS = 30.0
"""How long a replica waits for another one that writes."""
_NAME = re.compile(r"(\d{8}T\d{12}-[0-9a-f]{8})\.(\w+)")


class Mask(BaseModel):
    """COCO run-length code: [height, width] and the compressed counts."""

    size: list[int] = Field(min_length=2, max_length=2)
    counts: str


class Instance(BaseModel):
    """One object: mask and box [x, y, width, height] in pixels of the upright image, best first in an answer."""

    segmentation: Mask
    bbox: list[float] = Field(min_length=4, max_length=4)
    label: str
    score: float = Field(ge=0, le=1)
    unknown: bool


class KeptAnswer(Document):
    """An answer to one image.

    Attributes:
        image: name of the image file.
        width, height: of the upright image, in pixels.
        model: the version that answered, NAME/VERSION, or a folder; `classes` are those that it knows.
        score: least score of the names in it.
        uncertainty: share (0..1) of its names that change under feature dropout; None where it was not asked for.
    """

    WHAT = "a kept answer"
    REMEDY = "delete it"

    time: AwareDatetime
    image: str
    sha256: str
    width: int
    height: int
    model: str
    classes: tuple[str, ...]
    score: float
    reasons: tuple[Reason, ...]
    uncertainty: float | None
    instances: tuple[Instance, ...]


class _Marker(Document):
    WHAT = "the description of a folder of kept answers"
    REMEDY = "give the folder of 'samif serve --keep'"

    holds: Literal["images and answers kept by samif serve"] = "images and answers kept by samif serve"


def is_kept_folder(folder: Path) -> bool:
    """Whether `samif serve --keep` made this folder."""
    return (folder / "kept.json").is_file()


def _is_foreign(item: Path) -> bool:
    """Whether an item is none that another replica, which is making the folder, leaves there."""
    return item.name not in ("kept.json", ".lock", "answers", "images") and not files.is_temporary(item.name)


def new_name(suffix: str) -> str:
    """A name for an image of now, with a suffix such as `.jpg`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid4().hex[:8]}{suffix}"


class KeptAnswers:
    """A folder of kept answers. Several processes may write to it.

    Attributes:
        images: the folder of the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.images, self._answers = folder, folder / "images", folder / "answers"

    def create(self) -> None:
        """Make the folder unless it is there.

        Raises:
            ConfigError: it holds something else.
            OSError: it cannot be written.
        """
        if is_kept_folder(self.folder):
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(map(_is_foreign, self.folder.iterdir()))):
            raise ConfigError(f"{self.folder} holds something else than kept answers; give another folder with --keep")
        for folder in (self.images, self._answers):
            folder.mkdir(parents=True, exist_ok=True)
        _Marker().save(self.folder / "kept.json")

    def add(self, answer: KeptAnswer, body: bytes, most_images: int, most_bytes: int) -> bool:
        """Write an answer and the bytes of its image; the oldest ones are removed first, as far as the limits ask.

        Args:
            most_images: in the folder.
            most_bytes: of images and answers in the folder.

        Returns:
            Whether it was kept: what alone exceeds `most_bytes` is not.

        Raises:
            OSError: it cannot be written.
        """
        content = answer.content()
        size = len(body) + len(content)
        if size > most_bytes:
            return False
        with FileLock(self.folder / ".lock", timeout=LOCK_SECONDS):
            self._drop(most_images - 1, most_bytes - size)
            files.commit(self.images / answer.image, body)
            files.commit(self._path_of(answer.image), content)
        return True

    def answer(self, image: str) -> KeptAnswer | None:
        """The answer to the image of that name; None where it is not there (yet, or any longer).

        Raises:
            IntegrityError: it is damaged.
        """
        try:
            return KeptAnswer.load(self._path_of(image))
        except ObjectMissing:
            return None

    def answers(self) -> Iterator[KeptAnswer]:
        """All answers whose image is there, oldest first.

        Raises:
            IntegrityError: one is damaged.
        """
        for path in sorted(self._answers.glob("*.json")):
            answer = self.answer(path.name) if _NAME.fullmatch(path.name) else None
            if answer is not None and (self.images / answer.image).is_file():
                yield answer

    def _path_of(self, image: str) -> Path:
        return self._answers / f"{image.partition('.')[0]}.json"

    def _drop(self, images: int, size: int) -> None:
        """Remove the oldest until at most so many images and bytes are left. Only files with names of `new_name` count;
        labels that somebody saved beside the images stay. Call with the lock."""
        found: defaultdict[str, list[Path]] = defaultdict(list)
        sizes: defaultdict[str, int] = defaultdict(int)
        for folder in (self._answers, self.images):
            with os.scandir(folder) as entries:
                for entry in entries:
                    match = _NAME.fullmatch(entry.name)
                    if files.is_temporary(entry.name):  # of a process that was killed: nobody else writes now
                        os.unlink(entry.path)
                    elif match is not None and (folder == self._answers) == (match[2] == "json"):
                        found[match[1]].append(Path(entry.path))
                        sizes[match[1]] += entry.stat().st_size
        total = sum(sizes.values())
        for count, name in zip(range(len(found), 0, -1), sorted(found), strict=True):
            if count <= images and total <= size:
                return
            for path in found[name]:  # the answer first
                path.unlink(missing_ok=True)
            total -= sizes[name]
