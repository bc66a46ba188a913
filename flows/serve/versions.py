"""Versions in memory, verified against their card before they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock

from flows.inference.predict import load_segmenter
from flows.registry.canary import CanaryRecords
from flows.registry.last_served import LastServed
from flows.registry.model_files import find_model
from flows.registry.promotion import CHAMPION
from flows.registry.registry import Registry
from flows.registry.version_ref import parse_ref
from flows.serve.settings import Settings
from flows.serve.smoke_test import smoke_test
from flows.workspace.layout import Layout
from samif.classifier.model import Classifier
from samif.config import Params, digest, load_params
from samif.errors import ConfigError, IntegrityError
from samif.inference.load import ModelFiles
from samif.inference.segment import Segmenter
from samif.io.hashing import file_sha256

logger = logging.getLogger(__name__)

Part = Literal["encoder", "decoder", "classifier"]
FROZEN = ("encoder", "decoder", "precision", "tiles", "semantic")
"""Digests of what two versions may share in memory; the last only where a semantic encoder is in use."""


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

    def last_served(self, ref: str) -> LastServed | None:
        """The version that `ref` named when it was last served here, read without the registry."""
        return None if self._registry is None else self._registry.last_served.read(ref)

    def record_served(self, ref: str, version: Version) -> None:
        """Record a version of the registry for `last_served`."""
        if self._registry is not None and version.number is not None:
            self._registry.last_served.write(ref, version.name, version.number, version.digests)

    def load(
        self,
        name: str,
        number: int | None,
        beside: Version | None,
        heads_only: bool = False,
        folder: Path | None = None,
    ) -> Version:
        """Fetch, verify and load a version, and try it once.

        Args:
            beside: a version in memory; its encoder and decoder are used where the new version has the same ones.
            heads_only: refuse a version that has others.
            folder: of the version's files; none means that the registry gives them.

        Raises:
            IntegrityError: its files are not the card's, or it does not work with its decoder.
            ObjectMissing: a file is not there.
        """
        self._open()
        ref = name if number is None else f"{name}/{number}"
        bundle = find_model(str(folder or ref), self._layout, self._registry)
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
        smoke_test(segmenter, ref)
        for part in parts:
            self._loaded(part)
        return Version(name, number, digests, segmenter)

    def _open(self) -> None:
        """Read params.yaml unless that was done: a workspace may be repaired while a replica waits for it."""
        if self._params is None and self._layout.params.exists():
            params = load_params(self._layout.params)
            self._registry = Registry(params.registry.tracking_uri, self._layout.root)
            self._params = params


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
