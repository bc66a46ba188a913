"""Versions in memory: verified against their card before they are used, switched by one assignment; the previous one is
kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock

from flows.inference.predict import load_segmenter
from flows.registry.canary import CanaryRecords
from flows.registry.model_files import find_model
from flows.registry.promotion import CHAMPION
from flows.registry.registry import Registry
from flows.registry.version_ref import parse_ref
from flows.runtime.system_errors import sentence_of
from flows.serve.settings import Settings
from flows.workspace.layout import Layout
from samif.classifier.model import Classifier
from samif.classifier.samples import features_of
from samif.config import Params, digest, load_params
from samif.errors import ConfigError, IntegrityError
from samif.inference.load import ModelFiles
from samif.inference.propose import predict_points
from samif.inference.segment import Segmenter
from samif.io.hashing import file_sha256
from samif.sam.frame import split_views

logger = logging.getLogger(__name__)

NOTE_SECONDS = 60.0
"""Time before it is read again whether an alias that was moved by hand still stands so."""
RETRY_SECONDS = 10.0
"""Time before a version that could not be loaded is tried again, unless the alias moves."""

Part = Literal["encoder", "decoder", "classifier"]
FROZEN = ("encoder", "decoder", "precision", "tiles", "semantic")
"""Digests of what two versions may share in memory; the last only where a semantic encoder is in use."""
PROBE = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3))


@dataclass(frozen=True)
class Version:
    """A model in memory, and what it is."""

    name: str
    number: int | None
    digests: dict[str, str]
    segmenter: Segmenter

    @property
    def title(self) -> str:
        return self.name if self.number is None else f"{self.name}/{self.number}"


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
    """What is live and what was live before; replaced as a whole, so that a switch is never seen half done."""

    live: Version | None = None
    previous: Version | None = None
    since: datetime | None = None
    swaps: int = 0


class Source:
    """Where versions come from: the registry of a workspace, or a folder.

    Args:
        loaded: called for every part that is read from a file.
        device: where versions compute, "cpu" or "cuda".
    """

    def __init__(
        self, settings: Settings, loaded: Callable[[Part], None] = lambda _: None, device: str = "cpu"
    ) -> None:
        self._layout = Layout(settings.root)
        self._params: Params | None = None
        self._registry: Registry | None = None
        self._checkpoints, self._loaded = (settings.checkpoint, settings.semantic_checkpoint), loaded
        self._device = device
        self._turn = FileLock(settings.state / "loading.lock")

    def resolve(self, ref: str) -> tuple[str, int | None]:
        """Registered model and version of `ref` now; a folder has its name and no number.

        Raises:
            ConfigError: params.yaml is wrong.
            ObjectMissing: the registry has nothing of that name.
            ServiceUnavailable: the registry does not answer.
        """
        self._open()
        if any((place / "classifier.safetensors").is_file() for place in (Path(ref), self._layout.root / ref)):
            return ref, None
        if self._registry is None:
            raise ConfigError(
                f"there is no classifier.safetensors in '{ref}' and no params.yaml here; give --workspace"
            )
        return self._registry.resolve(ref)

    def canaries(self, ref: str) -> CanaryRecords:
        """What the registry keeps of the canaries of the line of `ref`.

        Raises:
            ConfigError: there is no workspace.
        """
        self._open()
        if self._registry is None:
            raise ConfigError("a canary needs a registry, and there is no params.yaml here; give --workspace")
        return self._registry.canaries(parse_ref(ref).line)

    def hand_move(self, ref: str) -> str | None:
        """One sentence where the alias of the live version, if `ref` names it, was moved past the journal."""
        if self._registry is None or not ref.endswith(f"@{CHAMPION}"):
            return None
        try:
            return self._registry.hand_move(parse_ref(ref).line)
        except IntegrityError as error:  # the journal was tampered with
            return str(error)
        except Exception:  # a model is served all the same
            logger.info("the journal of %s cannot be read", ref, exc_info=True)
            return None

    def load(self, name: str, number: int | None, beside: Version | None, heads_only: bool = False) -> Version:
        """Fetch, verify and load a version, and try it once.

        Args:
            beside: a version in memory; its encoder and decoder are used where the new version has the same ones.
            heads_only: refuse a version that has others.

        Raises:
            IntegrityError: its files are not the card's, or it does not work with its decoder.
            ObjectMissing: a file is not there.
        """
        self._open()
        ref = name if number is None else f"{name}/{number}"
        bundle = find_model(ref, self._layout, self._registry)
        digests = _digests(bundle)
        if beside is not None and _frozen(digests) == _frozen(beside.digests):
            segmenter = _with_head(beside.segmenter, bundle)
            parts: tuple[Part, ...] = ("classifier",)
        elif heads_only:
            raise IntegrityError(
                f"{ref} was made with another encoder or decoder: its head cannot score these proposals"
            )
        else:
            with self._turn:  # one replica at a time, because memory then holds two models of it
                segmenter = load_segmenter(bundle, self._params, *self._checkpoints, self._device)
            parts = ("encoder", "decoder", "classifier")
        digests.setdefault("encoder", segmenter.encoder.digest)
        _smoke_test(segmenter, ref)
        for part in parts:
            self._loaded(part)
        return Version(name, number, digests, segmenter)

    def _open(self) -> None:
        """Read params.yaml unless that was done: a workspace may be repaired while a replica waits for it."""
        if self._params is None and self._layout.params.exists():
            params = load_params(self._layout.params)
            self._registry = Registry(params.registry.tracking_uri, self._layout.root)
            self._params = params


class ModelSlot:
    """Holds the version that one reference names, in this process.

    Args:
        beside: the version whose encoder and decoder may be used; this slot's own where not given.
        on_change: called after every switch and every new failure.
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
        self._note_until = 0.0
        self._source, self._beside, self._on_change = source, beside, on_change

    def start(self) -> None:
        """Load what the reference names.

        Raises:
            SamifError: see `Source.resolve` and `Source.load`.
        """
        self._switch(self._source.load(*self._source.resolve(self.ref), None))

    def poll(self) -> None:
        """Resolve the reference and switch to the version that it names. Errors are logged and kept in `registry_error`
        (the registry) and `failure` (a version); the live version stays."""
        try:
            name, number = self._source.resolve(self.ref)
        except Exception as error:
            if self.registry_error is None:
                logger.warning("%s cannot be resolved", self.ref, exc_info=error)
            self.registry_error = sentence_of(error)
            return
        self.registry_error = None
        if self.note is not None and time.monotonic() >= self._note_until:
            self._look_at_alias()
        live, previous = self.state.live, self.state.previous
        self.behind = live is None or number != live.number
        if self.behind and not self._waits(f"{name}/{number}"):
            try:
                kept = previous if previous is not None and previous.number == number else None
                self._switch(kept or self._load(name, number))
            except Exception as error:  # whatever a bad version does, the live one stays
                title, why = f"{name}/{number}", sentence_of(error)
                news = self.failure is None or (self.failure.version, self.failure.why) != (title, why)
                at = datetime.now(UTC) if self.failure is None or news else self.failure.at
                self.failure = Failure(title, why, at, time.monotonic() + RETRY_SECONDS)
                if news:
                    logger.warning("%s cannot be loaded", title, exc_info=error)
                    self._on_change(self)

    def _load(self, name: str, number: int | None) -> Version:
        if self._beside is None:
            return self._source.load(name, number, self.state.live)
        return self._source.load(name, number, self._beside(), heads_only=True)

    def _switch(self, version: Version) -> None:
        count = self.state.swaps + (self.state.live is not None)
        self.state = State(version, self.state.live, datetime.now(UTC), count)
        self.behind = False
        self._look_at_alias()
        self._on_change(self)

    def _look_at_alias(self) -> None:
        before, self.note = self.note, self._source.hand_move(self.ref)
        self._note_until = time.monotonic() + NOTE_SECONDS
        if self.note is not None and self.note != before:
            logger.warning("%s", self.note)

    def _waits(self, title: str) -> bool:
        return self.failure is not None and self.failure.version == title and time.monotonic() < self.failure.until


def _digests(bundle: ModelFiles) -> dict[str, str]:
    if bundle.card is None:
        return {"classifier": file_sha256(bundle.classifier), "decoder": file_sha256(bundle.decoder)}
    card = bundle.card
    semantic = {"semantic": digest(card.semantic)} if card.semantic else {}
    return semantic | {
        "card": card.digest,
        "classifier": card.identity.classifier,
        "decoder": card.decoder.sha256,
        "encoder": card.encoder.digest,
        "precision": card.encoder.precision,
        "tiles": str(card.encoder.tiles),
    }


def _frozen(digests: dict[str, str]) -> list[str | None]:
    return [digests.get(part) for part in FROZEN]


def _with_head(frozen: Segmenter, bundle: ModelFiles) -> Segmenter:
    assert bundle.card is not None
    inference = bundle.card.inference
    return replace(
        frozen,
        classifier=Classifier.load(bundle.classifier),
        propose_params=inference.propose,
        evaluate_params=inference.evaluate,
    )


def _smoke_test(segmenter: Segmenter, ref: str) -> None:
    """Run every part once on a small image, so that a version that does not work is found before the switch."""
    seen = segmenter.embed([PROBE])[0]
    frame = segmenter.encoder.frame(PROBE)
    middle = torch.full((1, 2), segmenter.encoder.image_size / 2.0)
    classifier = segmenter.classifier
    embedding = split_views(seen.embedding, frame)[0][1]
    proposals, _ = predict_points(segmenter.decoder, embedding, frame, middle)
    features = features_of(proposals.with_semantic(seen.semantic), classifier.space.parts)
    found = classifier.probabilities(features)
    if not np.isfinite(found).all():
        raise IntegrityError(f"{ref} gives numbers that are not finite; register the version again")
