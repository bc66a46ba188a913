"""One poll of the live version and the images of its line: what `samif watch run` does.

Every observation goes to the history first; levels, alarms and recommendations are computed from the history alone. A
crash during a poll loses at most the image in work: the next poll raises the missing alarms and sends those that were
not sent.
"""

from __future__ import annotations

import hashlib
import logging
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
from flows.watch.records import Alarm, Cleared, FileIdentity, ImageObserved, Notified, Record, Side, Unreadable
from flows.watch.reference import References
from flows.watch.replay import replay
from flows.watch.stream import StreamObserver, may_be_incomplete, new_files
from flows.watch.webhook import Webhook
from flows.workspace.layout import Layout
from samif.config import Params
from samif.dataset.images import ImageError
from samif.evaluate.model import Evaluation
from samif.versions.card import Card
from samif.watch.charts import EMBEDDING, UNCERTAINTY
from samif.watch.rules import REPLAY, Recommendation, WatchStatus, describe, recommend

if TYPE_CHECKING:
    from samif.watch.charts import Baseline, Levels

logger = logging.getLogger(__name__)

DIGITS = 5
"""Decimals in the history, from which levels are computed."""
EXAMPLES = 4
"""Images that an alarm names."""


@dataclass
class PollResult:
    """Counts and events of one poll."""

    images: int = 0
    unreadable: int = 0
    incomplete: int = 0
    removed: int = 0
    raised: list[Alarm] = field(default_factory=list)
    cleared: list[Cleared] = field(default_factory=list)
    replayed: bool = False


@dataclass(frozen=True)
class WatchedVersion:
    """A version as NAME/VERSION, with its baseline; `reference` is the digest of what the baseline is computed from."""

    ref: str
    card: Card
    evaluation: Evaluation
    baseline: Baseline
    reference: str


def watch_folder(layout: Layout) -> Path:
    """The folder of a workspace's history."""
    return layout.state / "watch"


def watched_version(layout: Layout, params: Params, registry: Registry, ref: str) -> WatchedVersion:
    """The version that `ref` names, with its baseline; its reference is made where there is none yet."""
    name, number = registry.resolve(ref)
    exact = f"{name}/{number}"
    folder = registry.download(exact)
    baseline, reference = References(layout, params, registry).get(exact).baseline(params)
    evaluation = Evaluation.load(folder / "evaluation.json")
    return WatchedVersion(exact, Card.load(folder / "card.json"), evaluation, baseline, reference)


def levels_of(state: State, version: WatchedVersion) -> Levels:
    """The levels after all images that were observed with the version's reference."""
    from samif.watch.charts import Levels

    levels = Levels.start(version.baseline)
    if state.reference == version.reference:
        for image in state.recent:
            levels = levels.after(image.values, projections_of(image), version.baseline)
    return levels


def projections_of(image: ImageObserved) -> dict[str, NDArray[np.float64]]:
    """The projections of an image of the history, as `Baseline.measure` returns them."""
    return {EMBEDDING: np.array(image.embedding), UNCERTAINTY: np.array(image.uncertainty)}


def recommendations(layout: Layout, params: Params, state: State, version: WatchedVersion) -> list[Recommendation]:
    """Recommended actions, from the active alarms and the version's own scores."""
    groups, before = version.evaluation.classes, layout.evaluation() / "evaluation.json"
    forgetting = None
    if before.exists():
        base = Evaluation.load(before)
        now, was = version.evaluation.base_only.ap50, base.base_only.ap50
        if base.dataset == version.evaluation.dataset and now is not None and was is not None:
            forgetting = was - now
    status = WatchStatus(set(state.active), len(groups.base), len(groups.novel), forgetting)
    return recommend(status, params.watch)


class Watcher:
    """Watches one workspace. Use inside `history.writing()`.

    Args:
        ref: the version, usually LINE@champion; resolved again at every poll.
        images: folder of the stream, or of `samif serve --keep`; none watches the version alone.

    Raises:
        ConfigError: params.yaml names a webhook and the environment has no secret.
    """

    def __init__(self, layout: Layout, params: Params, registry: Registry, ref: str, images: Path | None) -> None:
        self.history = History(watch_folder(layout))
        self.metrics = Metrics()
        self._layout, self._params, self._registry = layout, params, registry
        self._ref, self._images = ref, images
        self._webhook = Webhook(params.watch.webhook) if params.watch.webhook else None
        self._version: WatchedVersion | None = None
        self._observer: StreamObserver | None = None
        self._state: State | None = None

    def poll(self) -> PollResult:
        """Replay the version if that is due, observe new images, raise and clear alarms, send alarms to the webhook.

        Raises:
            SamifError: the registry, the workspace, the folder or the webhook fails; what was observed is kept.
        """
        if self._state is None:
            self._state = self.history.state(self._params.watch.window)
        version, result = self._current(), PollResult()
        self._apply(result, _outdated(self._state, version))
        if self._replay_is_due(version):
            self._replay(version, result)
        if self._images is not None:
            self._observe_stream(version, self._images, result)
        recommended = recommendations(self._layout, self._params, self._state, version)
        self._export(version, recommended)
        self._notify(recommended)
        return result

    def _current(self) -> WatchedVersion:
        name, number = self._registry.resolve(self._ref)
        if self._version is None or self._version.ref != f"{name}/{number}":
            self._version = watched_version(self._layout, self._params, self._registry, self._ref)
            self._observer = None
            logger.info("watching %s against reference %s", self._version.ref, self._version.reference[:12])
        return self._version

    def _record(self, *records: Record) -> None:
        assert self._state is not None
        self.history.append(records)
        for record in records:
            self._state.add(record)

    def _apply(self, result: PollResult, changes: Iterator[Alarm | Cleared]) -> None:
        found = list(changes)
        if found:
            self._record(*found)
        for change in found:
            if isinstance(change, Alarm):
                result.raised.append(change)
            else:
                result.cleared.append(change)
            say(f"{'ALARM' if isinstance(change, Alarm) else 'cleared'}: {change.sentence}")

    def _replay_is_due(self, version: WatchedVersion) -> bool:
        assert self._state is not None
        last = self._state.replay
        age = timedelta(hours=self._params.watch.replay_hours)
        return last is None or last.model != version.ref or datetime.now(UTC) - last.time >= age

    def _replay(self, version: WatchedVersion, result: PollResult) -> None:
        assert self._state is not None
        self._record(replay(self._layout, self._params, self._registry, version.ref))
        result.replayed = True
        self._apply(result, _after_replay(self._state, version))

    def _observe_stream(self, version: WatchedVersion, folder: Path, result: PollResult) -> None:
        assert self._state is not None
        new = new_files(folder, self._state.files)
        levels = levels_of(self._state, version)
        # a crash may have come between an image and its alarm
        self._apply(result, _changes(self._state, version, levels, folder))
        if not new:
            return
        if self._observer is None:
            self._observer = StreamObserver(find_model(version.ref, None, self._registry), self._params)
        with track(len(new), "images", "watch") as progress:
            for file in new:
                record = self._observe(version, self._observer, folder, file)
                if record is None:
                    removed = not (folder / file.name).exists()
                    result.removed, result.incomplete = result.removed + removed, result.incomplete + (not removed)
                    continue
                self._record(record)
                if isinstance(record, Unreadable):
                    result.unreadable += 1
                    progress.quarantine(1)
                    progress.note(f"{file.name} is skipped: {record.reason}")
                else:
                    result.images += 1
                    levels = levels.after(record.values, projections_of(record), version.baseline)
                    self._apply(result, _changes(self._state, version, levels, folder))
                progress.advance()

    def _observe(
        self, version: WatchedVersion, observer: StreamObserver, folder: Path, file: FileIdentity
    ) -> ImageObserved | Unreadable | None:
        """The observation of a file, or why it is no image; none where it may still be being written, or is gone: a
        service removes the oldest images that it keeps."""
        now = datetime.now(UTC)
        try:
            observed = observer.observe(folder / file.name)
        except ImageError as error:
            if may_be_incomplete(file) or not (folder / file.name).exists():
                return None
            return Unreadable(time=now, file=file, reason=f"it {error.what}; {error.remedy}")
        values, projections = version.baseline.measure(observed)
        return ImageObserved(
            time=now,
            reference=version.reference,
            file=file,
            values={name: round(value, DIGITS) for name, value in values.items()},
            embedding=tuple(round(float(x), DIGITS) for x in projections[EMBEDDING]),
            uncertainty=tuple(round(float(x), DIGITS) for x in projections[UNCERTAINTY]),
        )

    def _export(self, version: WatchedVersion, recommended: list[Recommendation]) -> None:
        assert self._state is not None
        self.metrics.update(self._state, levels_of(self._state, version).readings(version.baseline), recommended)
        self.metrics.write(watch_folder(self._layout) / "metrics.prom")

    def _notify(self, recommended: list[Recommendation]) -> None:
        assert self._state is not None
        if self._webhook is None:
            return
        actions = [{"action": item.action, "reason": item.reason} for item in recommended]
        for alarm in list(self._state.active.values()):
            if alarm.id not in self._state.notified:
                data = alarm.model_dump(mode="json", exclude={"kind", "folder"})
                data |= {"line": self._params.line, "recommendations": actions}
                content = {"type": "samif.watch.alarm", "timestamp": alarm.time.isoformat(), "data": data}
                self._webhook.send(alarm.id, content)
                self._record(Notified(time=datetime.now(UTC), alarm=alarm.id))


def _changes(state: State, version: WatchedVersion, levels: Levels, folder: Path) -> Iterator[Alarm | Cleared]:
    """Alarms that begin or end at these levels."""
    for reading in levels.readings(version.baseline):
        for side in ("low", "high"):
            active, beyond = state.active.get((reading.name, side)), reading.side == side
            if beyond and active is None:
                limit = reading.high if side == "high" else reading.low
                alarm = _alarm(state, version, reading.name, side, describe(reading), reading.level, limit)
                examples = _examples(state, version, levels, reading.name)
                yield alarm.model_copy(update={"folder": str(folder), "examples": examples})
            elif active is not None and not beyond:
                sentence = f"{reading.name} is within its limits again"
                yield Cleared(time=datetime.now(UTC), alarm=active.id, sentence=sentence)


def _examples(state: State, version: WatchedVersion, levels: Levels, subject: str) -> tuple[str, ...]:
    """The files of the newest images that moved the level of a chart the most."""
    if state.reference != version.reference:
        return ()
    baseline = version.baseline
    recent = list(state.recent)[: -baseline.window - 1 : -1]
    recent.sort(key=lambda i: -baseline.deviation(subject, i.values, projections_of(i), levels))
    return tuple(image.file.name for image in recent[:EXAMPLES])


def _after_replay(state: State, version: WatchedVersion) -> Iterator[Alarm | Cleared]:
    assert state.replay is not None
    active, differences = state.active.get((REPLAY, "differs")), state.replay.differences
    if differences and active is None:
        sentence = f"{version.ref} differs from its registration: {'; '.join(differences)}"
        yield _alarm(state, version, REPLAY, "differs", sentence)
    elif active is not None and not differences:
        sentence = f"{version.ref} has the registered results again"
        yield Cleared(time=datetime.now(UTC), alarm=active.id, sentence=sentence)


def _outdated(state: State, version: WatchedVersion) -> Iterator[Cleared]:
    """The ends of alarms of another version, or against another reference."""
    for alarm in state.active.values():
        own = alarm.model == version.ref and (alarm.source == "replay" or alarm.reference == version.reference)
        if not own:
            sentence = f"{alarm.subject}: {version.ref} is watched now, or against another reference"
            yield Cleared(time=datetime.now(UTC), alarm=alarm.id, sentence=sentence)


def _alarm(
    state: State,
    version: WatchedVersion,
    subject: str,
    side: Side,
    sentence: str,
    level: float | None = None,
    limit: float | None = None,
) -> Alarm:
    now = datetime.now(UTC)
    identity = hashlib.sha256(f"{version.ref} {version.reference} {subject} {side} {now.isoformat()}".encode())
    return Alarm(
        time=now,
        id=f"alarm_{identity.hexdigest()[:24]}",
        source="replay" if side == "differs" else "stream",
        model=version.ref,
        reference=version.reference,
        subject=subject,
        side=side,
        level=level,
        limit=limit,
        images=state.images if state.reference == version.reference else 0,
        sentence=sentence,
    )
