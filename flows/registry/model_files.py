"""Find a model to load: a classifier and the decoder that it was made with, from a folder or the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.registry.registry import Registry
from flows.workspace.layout import Layout
from samif.errors import SamifError
from samif.versions.card import Card

CLASSIFIER = "classifier.safetensors"
DECODER = "decoder.safetensors"


@dataclass(frozen=True)
class Bundle:
    """Weight files that belong together. `card` is there for a registered version, and then both files are the
    card's; a classifier straight from a workspace has none."""

    classifier: Path
    decoder: Path
    card: Card | None
    folder: Path


def find_model(ref: str, workspace: Layout | None, registry: Registry | None) -> Bundle:
    """Find the model that `ref` names.

    Args:
        ref: a folder with classifier.safetensors (relative to here or to the workspace), whose decoder is
            decoder.safetensors in it or that of the workspace it lies in; or `NAME`, `NAME/VERSION`, `NAME@alias`.
        workspace: where relative folders are also looked for.
        registry: where references are looked up.

    Raises:
        SamifError: nothing of that name, a folder without its weights, or files that are not the card's.
    """
    places = [Path(ref), *([workspace.root / ref] if workspace else [])]
    folder = next((place for place in places if (place / CLASSIFIER).is_file()), None)
    if folder is None:
        if registry is None:
            raise SamifError(f"there is no {CLASSIFIER} in '{ref}'; give the folder of a model")
        try:
            folder = registry.download(ref)
        except SamifError as error:
            raise SamifError(f"'{ref}' is no folder with {CLASSIFIER}, and as a version: {error}") from None
    decoder = folder / DECODER
    if not decoder.is_file():
        decoder = folder.resolve().parent.parent / "decoder" / DECODER
    if not decoder.is_file():
        raise SamifError(f"there is no {DECODER} in {folder} nor at {decoder}; fetch the version again")
    classifier = folder / CLASSIFIER
    card = Card.load(folder / "card.json") if (folder / "card.json").is_file() else None
    if card is not None:
        card.check_files(classifier, decoder)
    return Bundle(classifier, decoder, card, folder)
