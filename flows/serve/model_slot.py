"""The version that one reference names, in this process: switched by one assignment; the previous one is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flows.registry.last_served import LastServed
from flows.runtime.system_errors import sentence_of
from flows.serve.versions import Source, Version
from samif.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

NOTE_SECONDS = 60.0
"""Time before it is read again whether an alias that was moved by hand still stands so."""
RETRY_SECONDS = 10.0
"""Time before a version that could not be loaded is tried again, unless the alias moves."""


@dataclass(frozen=True)
class Failure:
    """A version that the alias names and that could not be put into service."""

    version: str
    why: str
    at: datetime
    until: float
    """Monotonic time before which it is not tried again."""


@dataclass(frozen=True)
class State:
    """What is live and what was live before; replaced as a whole, so that a switch is never seen half done. `since` is
    none where the registry has not said yet that the version is live."""

    live: Version | None = None
    previous: Version | None = None
    since: datetime | None = None
    swaps: int = 0


class ModelSlot:
    """Holds the version that one reference names, in this process.

    Args:
        beside: the version whose encoder and decoder may be used; this slot's own where not given.
        on_change: called after every switch, every new failure, and when the registry confirms the version.

    Attributes:
        unconfirmed: one sentence where the live version is the last one served here, because the registry has not
            answered yet.
    """

    def __init__(
        self,
        source: Source,
        ref: str,
        beside: Callable[[], Version | None] | None = None,
        on_change: Callable[[ModelSlot], None] = lambda _: None,
    ) -> None:
        self.ref, self.state = ref, State()
        self.failure: Failure | None = None
        self.registry_error: str | None = None
        self.behind = False
        self.note: str | None = None
        self.unconfirmed: str | None = None
        self._note_until, self._tried_last = 0.0, False
        self._source, self._beside, self._on_change = source, beside, on_change

    @property
    def _nothing(self) -> str:
        return f"nothing is served meanwhile: no version of {self.ref} was served here before, or its files are gone"

    def start(self) -> None:
        """Load what the reference names, or what it named last where the registry is away.

        Raises:
            ServiceUnavailable: the registry is away, and no version of it was served here before.
            SamifError: see `Source.resolve` and `Source.load`.
        """
        try:
            self._switch(self._source.load(*self._source.resolve(self.ref), None))
        except ServiceUnavailable as error:
            self.registry_error = sentence_of(error)
            last = self._last_served()
            if last is None:
                raise ServiceUnavailable(f"{self.registry_error}; {self._nothing}") from None
            self._serve_last(last)

    def poll(self) -> None:
        """Resolve the reference and switch to the version that it names. Errors are logged and kept in `registry_error`
        (the registry) and `failure` (a version); the live version stays. Where there is none, and the registry is
        away, it is the last one served here."""
        try:
            name, number = self._source.resolve(self.ref)
        except Exception as error:
            if self.registry_error is None:
                logger.warning("%s cannot be resolved", self.ref, exc_info=error)
            self.registry_error = sentence_of(error)
            if self.state.live is None and isinstance(error, ServiceUnavailable):
                if not self._tried_last and (last := self._last_served()) is not None:
                    self._attempt(f"{last.name}/{last.number}", lambda: self._serve_last(last))
                elif self.failure is None:
                    self.registry_error += f"; {self._nothing}"
                self._tried_last = True
            return
        returned, self.registry_error, self._tried_last = self.registry_error is not None, None, False
        live, previous = self.state.live, self.state.previous
        self.behind = live is None or number != live.number
        if self.behind:
            kept = previous if previous is not None and previous.number == number else None
            self._attempt(f"{name}/{number}", lambda: self._switch(kept or self._load(name, number)))
        elif self.unconfirmed is not None:
            self._confirm()
        elif returned or (self.note is not None and time.monotonic() >= self._note_until):
            self._look_at_alias()

    def _last_served(self) -> LastServed | None:
        """What may be served while the registry is away."""
        return self._source.last_served(self.ref)

    def _attempt(self, title: str, switch: Callable[[], None]) -> None:
        """Switch to a version, unless it failed a short time ago."""
        if self.failure is not None and self.failure.version == title and time.monotonic() < self.failure.until:
            return
        try:
            switch()
        except Exception as error:  # whatever a bad version does, the live one stays
            why = sentence_of(error)
            news = self.failure is None or (self.failure.version, self.failure.why) != (title, why)
            at = datetime.now(UTC) if self.failure is None or news else self.failure.at
            self.failure = Failure(title, why, at, time.monotonic() + RETRY_SECONDS)
            if news:
                logger.warning("%s cannot be loaded", title, exc_info=error)
                self._on_change(self)

    def _load(self, name: str, number: int | None, folder: Path | None = None) -> Version:
        if self._beside is None:
            return self._source.load(name, number, self.state.live, folder=folder)
        return self._source.load(name, number, self._beside(), heads_only=True, folder=folder)

    def _serve_last(self, last: LastServed) -> None:
        version = self._load(last.name, last.number, last.folder)
        self.state = State(version)
        self.unconfirmed = (
            f"{version.title} is served because {self.ref} named it when it was last served here; whether it still "
            "does is not known until the registry answers"
        )
        logger.warning("%s (%s)", self.unconfirmed, self.registry_error)
        self._on_change(self)

    def _switch(self, version: Version) -> None:
        count = self.state.swaps + (self.state.live is not None)
        self.state = State(version, self.state.live, datetime.now(UTC), count)
        self.behind = False
        self._confirm()

    def _confirm(self) -> None:
        """The live version is the one that the registry names."""
        live, self.unconfirmed = self.state.live, None
        assert live is not None
        if self.state.since is None:
            self.state = replace(self.state, since=datetime.now(UTC))
        self._source.record_served(self.ref, live)
        self._look_at_alias()
        self._on_change(self)

    def _look_at_alias(self) -> None:
        before, self.note = self.note, self._source.hand_move(self.ref)
        self._note_until = time.monotonic() + NOTE_SECONDS
        if self.note is not None and self.note != before:
            logger.warning("%s", self.note)
