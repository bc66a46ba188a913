"""The lineage card of a classifier version: what it was made of, and who made it when and why.

A card has an identity (digests of everything that decides the numbers) and a provenance (circumstances).
Only the identity enters `Card.digest`, so doing the same work again gives the same card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, PrivateAttr, model_validator

from samif.classifier.operating_point import OperatingPoint
from samif.config import BASE, EvaluateParams, Name, ProposeParams, Strict, digest
from samif.errors import IntegrityError
from samif.evaluate.model import Evaluation
from samif.io.document import Document
from samif.io.hashing import file_sha256

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Identity(Strict):
    """What decides a version's numbers, each as a SHA-256.

    `classifier` is the digest of the file classifier.safetensors, `evaluation` comes from `evaluation_digest`.
    """

    dataset: Sha256
    params: Sha256
    encoder: Sha256
    decoder: Sha256
    classifier: Sha256
    evaluation: Sha256


class EncoderCard(Strict):
    """The frozen image encoder; `checkpoint` is the SHA-256 of its weight file, none for one that ships with samif."""

    name: str
    digest: Sha256
    checkpoint: Sha256 | None
    precision: Literal["float32", "bfloat16"] = "float32"
    tiles: int = Field(default=1, exclude_if=lambda tiles: bool(tiles == 1))


class SemanticCard(Strict):
    """The frozen semantic encoder of a classifier whose features name it: its network in timm, the digests of its
    weights and of how images come to it, the SHA-256 of its weight file, and the side of its input in pixels, none
    being the network's own."""

    name: str
    digest: Sha256
    preprocessing: Sha256
    checkpoint: Sha256
    size: int | None


class DecoderCard(Strict):
    """The frozen mask decoder: SHA-256 of the file decoder.safetensors."""

    sha256: Sha256


class Inference(Strict):
    """How proposals are made and labelled: a version answers the same wherever it is loaded."""

    propose: ProposeParams = ProposeParams()
    evaluate: EvaluateParams = EvaluateParams()


class Provenance(Strict):
    """Circumstances of a version; they never change what it answers. `params_file` is the SHA-256 of its params.yaml,
    comments and all."""

    created: AwareDatetime
    who: str
    why: str
    commit: str | None
    dvc_lock: Sha256 | None
    params_file: Sha256 | None = None
    data_revision: str | None
    samif: str
    mlflow_run: str | None = None


class Card(Document):
    """Lineage of one classifier version. `classes` are in row order; `rows` has the SHA-256 of each row's bytes."""

    WHAT = "the card of a version"
    REMEDY = "register the version again"

    line: str
    name: Name
    after: Name | None
    classes: tuple[str, ...] = Field(min_length=1)
    identity: Identity
    rows: dict[str, Sha256]
    encoder: EncoderCard
    # not written where there is none, so that such cards are what they were before there was a choice
    semantic: SemanticCard | None = Field(default=None, exclude_if=lambda value: value is None)
    # not written where there is none, as on cards of earlier releases
    operating_point: OperatingPoint | None = Field(default=None, exclude_if=lambda value: value is None)
    decoder: DecoderCard
    pretrain_classes: Literal["base", "all"]
    inference: Inference = Inference()
    provenance: Provenance

    _stored: dict[str, Any] | None = PrivateAttr(default=None)
    """The content of a card that an earlier release wrote, before a field was added; its digest stays what it was."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if (self.after is None) != (self.name == BASE):
            raise ValueError(f"'{self.name}' says after={self.after!r}; only '{BASE}' comes after nothing")
        if len(set(self.classes)) != len(self.classes) or set(self.rows) != set(self.classes):
            raise ValueError("'rows' must name each of 'classes' exactly once")
        if self.identity.encoder != self.encoder.digest or self.identity.decoder != self.decoder.sha256:
            raise ValueError("'identity' disagrees with 'encoder' or 'decoder'")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of everything but the provenance: the identity of the version."""
        return digest(self._stored or self.model_dump(mode="json", exclude={"provenance"}))

    @classmethod
    def parse(cls, content: bytes, origin: str) -> Self:
        """As `Document.parse`; a card that an earlier release wrote keeps its digest."""
        card = super().parse(content, origin)
        stored = {key: value for key, value in json.loads(content).items() if key != "provenance"}
        if digest(stored) != card.digest:
            card._stored = stored
        return card

    def check_follows(self, previous: Card | None) -> None:
        """Check that this version only adds to `previous`: same frozen parts, old rows bit-identical and in place.

        Args:
            previous: card of the classifier named by `after`; none for the base classifier.

        Raises:
            IntegrityError: it is another classifier's card, a frozen part differs, or an old row changed or moved.
        """
        if self.after != (previous.name if previous else None):
            given = f"the card of '{previous.name}'" if previous else "none"
            raise IntegrityError(f"'{self.name}' comes after {self.after!r} but the previous card given is {given}")
        if previous is None:
            return
        for part in ("encoder", "decoder"):
            if getattr(self.identity, part) != getattr(previous.identity, part):
                raise IntegrityError(
                    f"'{self.name}' was made with another {part} than '{previous.name}', which must stay frozen along "
                    "a chain of sessions; run the whole chain again"
                )
        if _seen_by(self) != _seen_by(previous):
            raise IntegrityError(
                f"'{self.name}' was made with another semantic encoder than '{previous.name}', which must stay frozen "
                "along a chain of sessions; run the whole chain again"
            )
        if self.classes[: len(previous.classes)] != previous.classes:
            raise IntegrityError(
                f"'{self.name}' drops or reorders classes of '{previous.name}'; a session may only append classes"
            )
        changed = [cls for cls in previous.classes if self.rows[cls] != previous.rows[cls]]
        if changed:
            raise IntegrityError(
                f"'{self.name}' changes the rows of {', '.join(changed)} that '{previous.name}' already had; "
                "old rows must stay bit-identical, so run the session again"
            )

    def check_files(self, classifier: Path, decoder: Path) -> None:
        """Check weight files against the card, before they are loaded.

        Raises:
            IntegrityError: a file's SHA-256 is not the card's.
            ObjectMissing: a file is missing.
        """
        for part, path, expected in (
            ("classifier", classifier, self.identity.classifier),
            ("decoder", decoder, self.decoder.sha256),
        ):
            found = file_sha256(path)
            if found != expected:
                raise IntegrityError(
                    f"{path} is not the {part} of card '{self.name}' (expected SHA-256 {expected[:12]}, got "
                    f"{found[:12]}); fetch the version again"
                )


def _seen_by(card: Card) -> tuple[str, str] | None:
    """What decides the semantic features; the same weights may come in another file."""
    return None if card.semantic is None else (card.semantic.digest, card.semantic.preprocessing)


def evaluation_digest(evaluation: Evaluation) -> str:
    """SHA-256 of what an evaluation found; not of its `seconds`, because a rerun must give the same card."""
    return digest(evaluation.model_dump(mode="json", exclude={"seconds"}))
