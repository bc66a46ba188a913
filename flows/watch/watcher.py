"""One look after another at the live version and the images of its line: what `samif watch run` does.

Everything that is seen goes to the history first; levels, alarms and what is due follow from the history alone. An end
in the middle of a look loses at most the image in work: the next look raises what was not raised, and tells what was
not told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flows.registry.model_files import find_model
from flows.registry.registry import Registry
from flows.runtime.progress import say, track
from flows.watch.history import History, State
from flows.watch.metrics import Metrics
from flows.watch.records import Alarm, Cleared, FileIdentity, ImageSeen, Record, Side, Told, Unreadable
from flows.watch.reference import References
from flows.watch.replay import replay
from flows.watch.stream import Eye, arrived, is_settling
from flows.watch.webhook import Webhook
from flows.workspace.layout import Layout
from samif.config import Params
from samif.dataset.images import ImageError
from samif.evaluate.model import Evaluation
from samif.versions.card import Card
from samif.watch.charts import DOUBT, EMBEDDING
from samif.watch.rules import REPLAY, Due, Standing, due, sentence

if TYPE_CHECKING:
    from samif.watch.charts import Levels, Normal, Reading

DIGITS = 5
"""Decimals that the history keeps; levels are made from what it keeps."""


@dataclass
class Look:
    """What one look came to."""

    images: int = 0
    unreadable: int = 0
    waiting: int = 0
    raised: list[Alarm] = field(default_factory=list)
    cleared: list[Cleared] = field(default_factory=list)
    replayed: bool = False


@dataclass(frozen=True)
class Subject:
    """A version under watch, as NAME/VERSION, and what is normal for it."""

    ref: str
    card: Card
    evaluation: Evaluation
    normal: Normal
    reference: str


def watch_folder(layout: Layout) -> Path:
    """Where the history of a workspace lies."""
    return layout.state / "watch"


def subject_of(layout: Layout, params: Params, registry: Registry, ref: str) -> Subject:
    """The version that `ref` names, with its reference (made where there is none yet)."""
    name, number = registry.resolve(ref)
    exact = f"{name}/{number}"
    folder = registry.download(exact)
    normal, reference = References(layout, params, registry).of(exact).normal(params)
    evaluation = Evaluation.load(folder / "evaluation.json")
    return Subject(exact, Card.load(folder / "card.json"), evaluation, normal, reference)


def levels_of(state: State, subject: Subject) -> Levels:
    """Where the charts stand after all images that were seen with the subject's reference."""
    from samif.watch.charts import Levels

    levels = Levels.start(subject.normal)
    if state.reference == subject.reference:
        for image in state.recent:
            levels = levels.after(image.values, places_of(image), subject.normal)
    return levels


def places_of(image: ImageSeen) -> dict[str, NDArray[np.float64]]:
    """Where an image of the history lies, as `Normal.measure` has it."""
    return {EMBEDDING: np.array(image.place), DOUBT: np.array(image.doubt)}


def due_now(layout: Layout, params: Params, state: State, subject: Subject) -> list[Due]:
    """What a person should see to, by the alarms that hold and the version's own numbers."""
    groups, before = subject.evaluation.classes, layout.evaluation() / "evaluation.json"
    forgotten = None
    if before.exists():
        base = Evaluation.load(before)
        now, was = subject.evaluation.base_only.ap50, base.base_only.ap50
        if base.dataset == subject.evaluation.dataset and now is not None and was is not None:
            forgotten = was - now
    return due(Standing(set(state.standing), len(groups.base), len(groups.novel), forgotten), params.watch)


class Watcher:
    """Watches one workspace. Use inside `history.writing()`.

    Args:
        ref: the version, usually LINE@champion; looked up again at every look.
        images: folder of the stream; none watches the version alone.

    Raises:
        SamifError: params.yaml names a webhook and the environment has no secret.
    """

    def __init__(self, layout: Layout, params: Params, registry: Registry, ref: str, images: Path | None) -> None:
        self.history = History(watch_folder(layout))
        self.metrics = Metrics()
        self._layout, self._params, self._registry = layout, params, registry
        self._ref, self._images = ref, images
        self._webhook = Webhook(params.watch.webhook) if params.watch.webhook else None
        self._subject: Subject | None = None
        self._eye: Eye | None = None
        self._state: State | None = None

    def look(self) -> Look:
        """Replay the version if that is due, look at new images, raise and clear alarms, tell the webhook.

        Raises:
            SamifError: the registry, the workspace, the folder or the webhook does not let it; what was seen is kept.
        """
        if self._state is None:
            self._state = self.history.state(self._params.watch.window)
        subject, look = self._current(), Look()
        self._settle(look, _outdated(self._state, subject))
        if self._replay_is_due(subject):
            self._replay(subject, look)
        if self._images is not None:
            self._stream(subject, self._images, look)
        self._show(subject)
        self._tell(subject)
        return look

    def _current(self) -> Subject:
        name, number = self._registry.resolve(self._ref)
        if self._subject is None or self._subject.ref != f"{name}/{number}":
            self._subject, self._eye = subject_of(self._layout, self._params, self._registry, self._ref), None
        return self._subject

    def _keep(self, *records: Record) -> None:
        assert self._state is not None
        self.history.append(records)
        for record in records:
            self._state.add(record)

    def _settle(self, look: Look, changes: Iterator[Alarm | Cleared]) -> None:
        found = list(changes)
        if found:
            self._keep(*found)
        for change in found:
            (look.raised if isinstance(change, Alarm) else look.cleared).append(change)  # type: ignore[arg-type]
            say(f"{'ALARM' if isinstance(change, Alarm) else 'cleared'}: {change.sentence}")

    def _replay_is_due(self, subject: Subject) -> bool:
        assert self._state is not None
        last = self._state.replay
        age = timedelta(hours=self._params.watch.replay_hours)
        return last is None or last.model != subject.ref or datetime.now(UTC) - last.time >= age

    def _replay(self, subject: Subject, look: Look) -> None:
        assert self._state is not None
        done = replay(self._layout, self._params, self._registry, subject.ref)
        self._keep(done)
        look.replayed = True
        self._settle(look, _after_replay(self._state, subject))

    def _stream(self, subject: Subject, folder: Path, look: Look) -> None:
        assert self._state is not None
        new = arrived(folder, self._state.seen)
        levels = levels_of(self._state, subject)
        # a crash may have come between an image and its alarm
        self._settle(look, _changes(self._state, subject, levels.readings(subject.normal)))
        if not new:
            return
        self._eye = self._eye or Eye(find_model(subject.ref, None, self._registry), self._params)
        with track(len(new), "images", "watch") as progress:
            for file in new:
                record = self._seen(subject, folder, file)
                if record is None:
                    look.waiting += 1
                    continue
                self._keep(record)
                if isinstance(record, Unreadable):
                    look.unreadable += 1
                    progress.quarantine(1)
                    progress.note(f"{file.name} is left out: {record.reason}")
                else:
                    look.images += 1
                    levels = levels.after(record.values, places_of(record), subject.normal)
                    self._settle(look, _changes(self._state, subject, levels.readings(subject.normal)))
                progress.advance()

    def _seen(self, subject: Subject, folder: Path, file: FileIdentity) -> ImageSeen | Unreadable | None:
        """An image, or why it is none; nothing where it may still be on its way."""
        assert self._eye is not None
        now = datetime.now(UTC)
        try:
            seen = self._eye.see(folder / file.name)
        except ImageError as error:
            if is_settling(file):
                return None
            return Unreadable(time=now, file=file, reason=f"it {error.what}; {error.remedy}")
        values, places = subject.normal.measure(seen)
        return ImageSeen(
            time=now,
            reference=subject.reference,
            file=file,
            values={name: round(value, DIGITS) for name, value in values.items()},
            place=tuple(round(float(x), DIGITS) for x in places[EMBEDDING]),
            doubt=tuple(round(float(x), DIGITS) for x in places[DOUBT]),
        )

    def _show(self, subject: Subject) -> None:
        assert self._state is not None
        readings = levels_of(self._state, subject).readings(subject.normal)
        self.metrics.show(self._state, readings, due_now(self._layout, self._params, self._state, subject))
        self.metrics.write(watch_folder(self._layout) / "metrics.prom")

    def _tell(self, subject: Subject) -> None:
        assert self._state is not None
        if self._webhook is None:
            return
        advice = [{"what": item.what, "why": item.why} for item in self._due(subject)]
        for alarm in list(self._state.standing.values()):
            if alarm.id not in self._state.told:
                data = alarm.model_dump(mode="json", exclude={"kind"}) | {"line": self._params.line, "due": advice}
                content = {"type": "samif.watch.alarm", "timestamp": alarm.time.isoformat(), "data": data}
                self._webhook.tell(alarm.id, content)
                self._keep(Told(time=datetime.now(UTC), alarm=alarm.id))

    def _due(self, subject: Subject) -> list[Due]:
        assert self._state is not None
        return due_now(self._layout, self._params, self._state, subject)


def _changes(state: State, subject: Subject, readings: list[Reading]) -> Iterator[Alarm | Cleared]:
    """Alarms that begin or end with these readings."""
    for reading in readings:
        for side in ("low", "high"):
            standing, beyond = state.standing.get((reading.name, side)), reading.side == side
            if beyond and standing is None:
                limit = reading.high if side == "high" else reading.low
                yield _alarm(state, subject, reading.name, side, sentence(reading), reading.level, limit)
            elif standing is not None and not beyond:
                yield Cleared(time=datetime.now(UTC), alarm=standing.id, sentence=f"{reading.name} is as usual again")


def _after_replay(state: State, subject: Subject) -> Iterator[Alarm | Cleared]:
    assert state.replay is not None
    standing, complaints = state.standing.get((REPLAY, "differs")), state.replay.complaints
    if complaints and standing is None:
        text = f"{subject.ref} is no longer what it was when it was registered: {'; '.join(complaints)}"
        yield _alarm(state, subject, REPLAY, "differs", text)
    elif standing is not None and not complaints:
        yield Cleared(time=datetime.now(UTC), alarm=standing.id, sentence=f"{subject.ref} came out as registered")


def _outdated(state: State, subject: Subject) -> Iterator[Cleared]:
    """Alarms of another version, or held against other limits: they say nothing any more."""
    for alarm in state.standing.values():
        own = alarm.model == subject.ref and (alarm.source == "replay" or alarm.reference == subject.reference)
        if not own:
            why = f"{alarm.subject}: {subject.ref} is watched now, or against another reference"
            yield Cleared(time=datetime.now(UTC), alarm=alarm.id, sentence=why)


def _alarm(
    state: State,
    subject: Subject,
    name: str,
    side: Side,
    text: str,
    level: float | None = None,
    limit: float | None = None,
) -> Alarm:
    now = datetime.now(UTC)
    identity = hashlib.sha256(f"{subject.ref} {subject.reference} {name} {side} {now.isoformat()}".encode())
    return Alarm(
        time=now,
        id=f"alarm_{identity.hexdigest()[:24]}",
        source="replay" if side == "differs" else "stream",
        model=subject.ref,
        reference=subject.reference,
        subject=name,
        side=side,
        level=level,
        limit=limit,
        images=state.images if state.reference == subject.reference else 0,
        sentence=text,
    )
