"""The queue of what a person looks at: errors on the validation images, images on which champion and challenger
disagree, and images of alarms. An item is one object, or an image without one."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.artifacts.disagreements import IMAGE, RECORD, DisagreementRecord, read_disagreements, sample_folders
from flows.console.decisions import Decision
from flows.error_analysis.accept import uses_of
from flows.error_analysis.collect import Errors, collect
from flows.error_analysis.page import crop_jpeg
from flows.http.errors import HttpError
from flows.report.images import JPEG_QUALITY
from flows.watch.history import History
from flows.watch.records import Alarm, Cleared, Side
from flows.watch.watcher import watch_folder
from flows.workspace.layout import Layout
from samif.config import BASE, load_params
from samif.dataset.images import read_small
from samif.errors import ConfigError, IntegrityError, ObjectMissing
from samif.evaluate.errors import ErrorCase
from samif.inference.segment import UNKNOWN
from samif.io.image_formats import is_image_name
from samif.masks.rle import Rle

Kind = Literal["error", "disagreement", "alarm"]
ALARMS = 50
"""Alarms that are listed, the newest."""
UNREADABLE = (ConfigError, IntegrityError, ObjectMissing)
"""What a source of items raises where it has none to give."""
_SIDE = 480


@dataclass(frozen=True)
class Item:
    """What a person looks at.

    Attributes:
        id: the same for the same object in the same image and of the same classifier.
        cause: of an error, the kind of a disagreement, or the statistic of an alarm.
        image: the image file; None where an alarm has none.
        shown: name of the image for people.
        name, label: the name that was given and the one that is labelled; of a disagreement those of champion and
            challenger. None where there is none.
        sentence: of an alarm, or the versions of a disagreement.
        side, level, limit: of an alarm; no level where it is about a replay.
        over: whether an alarm has ended.
        rle: the mask of the object.
        accepted: the class under which the object is learnt if the item is accepted.
        decisions: what can be decided.
    """

    id: str
    kind: Kind
    cause: str
    image: Path | None
    shown: str
    name: str | None = None
    label: str | None = None
    score: float | None = None
    sentence: str | None = None
    at: str | None = None
    over: bool = False
    side: Side | None = None
    level: float | None = None
    limit: float | None = None
    rle: Rle | None = None
    accepted: str | None = None
    decisions: tuple[Decision, ...] = ("accept", "fix", "never")


class Review:
    """The queue of one workspace.

    Args:
        shadow: folder of `samif serve --shadow-folder`, if there is one.
    """

    def __init__(self, layout: Layout, shadow: Path | None) -> None:
        self._layout, self._shadow = layout, shadow
        self._errors: dict[str, tuple[Hashable, Errors]] = {}
        self._history: tuple[int, list[tuple[Alarm, bool]]] = (0, [])

    def items(self, session: str | None) -> tuple[list[Item], list[str]]:
        """All items, and why a source has none; errors are those of a classifier, by default of the last session."""
        items, problems = list[Item](), list[str]()
        sources: tuple[Callable[[], Iterator[Item]], ...] = (
            self._alarms, self._disagreements, lambda: self._error_items(session),
        )  # fmt: skip
        for source in sources:
            try:
                items += source()
            except UNREADABLE as error:
                problems.append(str(error))
        return items, problems

    def item(self, id_: str) -> Item:
        """An item by its id.

        Raises:
            HttpError: 404; there is none, or not any longer.
        """
        kind, _, rest = id_.partition(".")
        try:
            found: Iterator[Item] = iter(())
            if kind == "error":
                found = self._error_items(rest.partition(".")[0])
            elif kind == "disagreement":
                found = self._disagreements(rest.partition(".")[0])
            elif kind == "alarm":
                found = self._alarms()
            return next(item for item in found if item.id == id_)
        except (StopIteration, *UNREADABLE):
            raise HttpError(404, "item", "this is no longer in the queue; read the list again") from None

    def errors(self, session: str | None) -> Errors:
        """The errors of a classifier, read once per state of its evaluation.

        Raises:
            SamifError: there is no such classifier, or it was not evaluated.
        """
        params = load_params(self._layout.params)
        name = session or [BASE, *params.sessions][-1]
        paths = (self._layout.params, self._layout.index("val"), self._layout.evaluation(name) / "evaluation.json")
        state = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)
        if name not in self._errors or self._errors[name][0] != state:
            self._errors[name] = state, collect(self._layout, params, name)
        return self._errors[name][1]

    def _error_items(self, session: str | None) -> Iterator[Item]:
        errors = self.errors(session)
        for case in errors.cases:
            accepted = _learnable(case)
            may = {"accept": accepted is not None, "fix": True, "never": "background" in uses_of(case.cause)}
            yield Item(
                f"error.{errors.name}.{case.id}", "error", case.cause, errors.dataset.path_of(case.image),
                case.image.file_name, case.name, case.label, case.score, rle=case.rle, accepted=accepted,
                decisions=tuple(d for d in ("accept", "fix", "never") if may[d]),
            )  # fmt: skip

    def _disagreements(self, sample: str | None = None) -> Iterator[Item]:
        if self._shadow is None:
            return
        line = f"{load_params(self._layout.params).line}-classifier/"
        if sample is None:
            found: Iterator[tuple[Path, DisagreementRecord]] = read_disagreements(self._shadow)
        else:
            folders = [folder for folder in sample_folders(self._shadow) if folder.name == sample]
            found = ((folder, DisagreementRecord.load(folder / RECORD)) for folder in folders)
        for folder, record in found:
            if not record.champion.version.startswith(line):
                continue
            for number, difference in enumerate(record.disagreements):
                instance = record.instance(difference)
                if instance is None:
                    continue
                names = [n for n in (difference.challenger, difference.champion) if n and n != UNKNOWN]
                yield Item(
                    f"disagreement.{folder.name}.{number}", "disagreement", difference.kind, folder / IMAGE,
                    folder.name, difference.champion, difference.challenger, instance.score, at=_time(folder.name),
                    sentence=f"{record.champion.version}, {record.challenger.version}",
                    rle=instance.segmentation.model_dump(), accepted=names[0] if names else None,
                    decisions=("accept", "fix", "never") if names else ("fix", "never"),
                )  # fmt: skip

    def _alarms(self) -> Iterator[Item]:
        for alarm, over in self._newest_alarms():
            images = _images_of(alarm)
            for number, path in enumerate(images or [None]):
                yield Item(
                    f"alarm.{alarm.id}.{number}", "alarm", alarm.subject, path, path.name if path else "", over=over,
                    sentence=alarm.sentence, at=alarm.time.isoformat(timespec="seconds"), side=alarm.side,
                    level=alarm.level, limit=alarm.limit,
                    decisions=("accept", "fix", "never") if path else ("accept",),
                )  # fmt: skip

    def _newest_alarms(self) -> list[tuple[Alarm, bool]]:
        """The newest alarms and whether each has ended, newest first; the history is read once per state."""
        history = History(watch_folder(self._layout))
        state = history.path.stat().st_size if history.path.exists() else 0
        if self._history[0] != state:
            alarms: dict[str, Alarm] = {}
            over = set()
            for record in history.read():
                if isinstance(record, Alarm):
                    alarms[record.id] = record
                elif isinstance(record, Cleared):
                    over.add(record.alarm)
            newest = sorted(alarms.values(), key=lambda alarm: alarm.time, reverse=True)[:ALARMS]
            self._history = state, [(alarm, alarm.id in over) for alarm in newest]
        return self._history[1]


def crop(item: Item) -> bytes:
    """The surroundings of an item's object with its mask, or its whole image, as a JPEG.

    Raises:
        ObjectMissing: it has no image, or that was removed.
        ImageError: the image cannot be read.
    """
    if item.image is None or not item.image.is_file():
        raise ObjectMissing("this has no image, or it was removed to make room for newer ones")
    if item.rle is not None:
        names = [item.name, item.label] if item.kind == "disagreement" else [item.name or item.label]
        return crop_jpeg(item.image, item.rle, " / ".join(name or "-" for name in names), item.score)
    out = io.BytesIO()
    read_small(item.image, _SIDE).save(out, format="JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _learnable(case: ErrorCase) -> str | None:
    """The class that an error's object can be learnt under."""
    return case.label if "shots" in uses_of(case.cause) and case.label != UNKNOWN else None


def _images_of(alarm: Alarm) -> Sequence[Path]:
    """The images of an alarm that are still there."""
    if alarm.folder is None:
        return []
    folder = Path(alarm.folder)
    paths = [folder / name for name in alarm.examples]
    return [p for p in paths if is_image_name(p.name) and ".." not in p.parts and p.is_file()]


def _time(sample: str) -> str:
    """The time in the name of a sample's folder, as ISO 8601."""
    return f"{sample[:4]}-{sample[4:6]}-{sample[6:8]}T{sample[9:11]}:{sample[11:13]}:{sample[13:15]}+00:00"
