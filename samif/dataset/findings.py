"""Findings of one pass over a COCO file, as they come up."""

from __future__ import annotations

from typing import Literal

from samif.dataset.check import Finding, Loss

NOTHING_TO_DO = "nothing needs to be done"


class Findings:
    """Collects findings; harmless oddities of many records become one finding with their number.

    Attributes:
        file: name of the annotation file.
        found: one finding per record, in file order.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Finding] = []
        self._tallies: dict[tuple[str, str], tuple[int, object]] = {}

    def add(
        self,
        what: str,
        remedy: str,
        file: str | None = None,
        image: int | None = None,
        annotation: int | None = None,
        *,
        level: Literal["error", "warning"] = "error",
        loss: Loss = "",
        kind: str = "",
    ) -> None:
        """A finding about one record, or about the file."""
        self.found.append(Finding(level, file or self.file, image, annotation, what, remedy, loss, kind))

    def tally(self, what: str, remedy: str, example: object = None, count: int = 1) -> None:
        """More records of a harmless kind."""
        before, first = self._tallies.get((what, remedy), (0, None))
        self._tallies[what, remedy] = before + count, example if first is None else first

    def all(self) -> list[Finding]:
        """What was found about single records, then one warning per harmless kind."""
        counted = []
        for (what, remedy), (count, first) in self._tallies.items():
            text = f"{what}: {count}" + ("" if first is None else f", such as {shown(first)}")
            counted.append(Finding("warning", self.file, None, None, text, remedy, count=count))
        return [*self.found, *counted]


def shown(value: object) -> str:
    """A value of a record in a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
