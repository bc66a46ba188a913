"""Images and labels that cannot be used: which, why, what to do; and the file in which a stage keeps their list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.workspace.layout import Split
from samif.config import Strict
from samif.dataset.images import ImageError
from samif.io.document import Document

_SHOWN = 3


@dataclass(frozen=True)
class Quarantined:
    """An image file that could not be used.

    Attributes:
        path: the file.
        sha256: of its content when it was indexed; "" where it was not.
        reason: a phrase whose subject is the file, such as "is empty (0 bytes)".
        remedy: what to do, as an order.
    """

    path: Path
    sha256: str
    reason: str
    remedy: str

    @classmethod
    def of(cls, path: Path, sha256: str, error: ImageError) -> Quarantined:
        return cls(path, sha256, error.what, error.remedy)


class BrokenImage(Strict):
    """One line of a stage's list: `file` is relative to the folder of its split."""

    split: Split
    file: str
    sha256: str = ""
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file} {self.reason}; {self.remedy}"


class BrokenLabel(Strict):
    """A label that was left out or whose outline was changed: `file` is relative to the folder of its split."""

    split: Split
    file: str
    annotation: int | None
    left_out: bool
    reason: str
    remedy: str


class Quarantine(Document):
    """The lists that a stage writes, empty or not, and the policy for images under which they were made."""

    WHAT = "a list of broken images"
    REMEDY = "delete it and run 'samif run', which writes it"

    policy: Literal["refuse", "quarantine"]
    images: tuple[BrokenImage, ...]
    labels: tuple[BrokenLabel, ...] = ()

    @property
    def sentence(self) -> str:
        """How many, and of the first few which and why."""
        more = f" | and {len(self.images) - _SHOWN} more" if len(self.images) > _SHOWN else ""
        noun = "image" if len(self.images) == 1 else "images"
        return f"{len(self.images)} broken {noun}: {' | '.join(map(str, self.images[:_SHOWN]))}{more}"

    @property
    def sha256s(self) -> frozenset[str]:
        """Content of the images in the list."""
        return frozenset(image.sha256 for image in self.images)
