"""Segment images with a model from a folder or the registry: COCO results and overlays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flows.loaders.inputs import encoder_of, semantic_of
from flows.registry.model_files import Bundle
from samif.config import EncoderParams, Params, SemanticParams
from samif.dataset.images import inspect_image, read_image
from samif.errors import SamifError
from samif.io import files
from samif.versions.card import Inference, SemanticCard

if TYPE_CHECKING:
    from samif.inference.segment import Instances, Segmenter
    from samif.semantic.encoder import SemanticEncoder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Prediction:
    """The instances of one image file."""

    file: Path
    instances: Instances


def load_segmenter(
    bundle: Bundle,
    params: Params | None,
    checkpoint: str | None = None,
    semantic_checkpoint: str | None = None,
    device: str = "cpu",
) -> Segmenter:
    """Encoders, decoder and classifier of a bundle, the encoders checked against the card.

    Args:
        params: of the workspace, if there is one: says where the encoder's checkpoint lies, and how a classifier
            without a card proposes and labels.
        checkpoint: path or address of the encoder's checkpoint, instead of the workspace's.
        semantic_checkpoint: the same of the semantic encoder, where the classifier's features name it.
        device: where encoders and decoder compute, "cpu" or "cuda".

    Raises:
        SamifError: an encoder cannot be had, or is not the one that the model was made with.
    """
    from samif.classifier.model import Classifier
    from samif.inference.segment import Segmenter
    from samif.sam.decoder import load_decoder

    decoder, architecture = load_decoder(bundle.decoder)
    known = params.encoder if params is not None and params.encoder.name == architecture else None
    wanted = bundle.card.encoder.checkpoint if bundle.card else (known.sha256 if known else None)
    address = checkpoint or (known.checkpoint if known else None)
    name = EncoderParams.model_validate({"name": architecture}).name
    sha256 = None if name == "tiny" else wanted
    precision = bundle.card.encoder.precision if bundle.card else (known.precision if known else "float32")
    encoder = encoder_of(EncoderParams(name=name, checkpoint=address, sha256=sha256, precision=precision), device)
    if bundle.card is not None and encoder.digest != bundle.card.encoder.digest:
        raise SamifError(
            f"encoder '{name}' has digest {encoder.digest[:12]}, the model was made with "
            f"{bundle.card.encoder.digest[:12]}; give that checkpoint with --checkpoint"
        )
    if bundle.card is not None:
        inference = bundle.card.inference
    else:
        inference = Inference(propose=params.propose, evaluate=params.evaluate) if params else Inference()
    classifier = Classifier.load(bundle.classifier)
    semantic = None
    if "semantic" in classifier.space.parts:
        semantic = _load_semantic(bundle.card.semantic if bundle.card else None, params, semantic_checkpoint, device)
    return Segmenter(encoder, decoder.to(device), classifier, inference.propose, inference.evaluate, semantic)


def _load_semantic(
    card: SemanticCard | None, params: Params | None, checkpoint: str | None, device: str
) -> SemanticEncoder:
    """The semantic encoder of a card, or of the workspace where there is no card."""
    here = params.semantic if params is not None else None
    if card is None:
        if here is None:
            raise SamifError(
                "the model needs a semantic encoder and has no card that says which; give the workspace that it was "
                "made in with --workspace, or a registered version"
            )
        return semantic_of(here if checkpoint is None else here.model_copy(update={"checkpoint": checkpoint}), device)
    if checkpoint is None and here is not None and here.sha256 == card.checkpoint:
        checkpoint = here.checkpoint
    if checkpoint is None:
        raise SamifError(
            f"the model needs the checkpoint of semantic encoder '{card.name}' (SHA-256 {card.checkpoint}), which no "
            "params.yaml here names; give it with --semantic-checkpoint"
        )
    encoder = semantic_of(
        SemanticParams(model=card.name, checkpoint=checkpoint, sha256=card.checkpoint, size=card.size), device
    )
    if (encoder.digest, encoder.preprocessing_digest) != (card.digest, card.preprocessing):
        raise SamifError(
            f"semantic encoder '{card.name}' at hand is not the one that the model was made with "
            f"({encoder.digest[:12]} instead of {card.digest[:12]}); give that checkpoint with --semantic-checkpoint"
        )
    return encoder


def find_images(places: Sequence[Path]) -> list[Path]:
    """Image files among paths; a folder stands for the images in it.

    Raises:
        SamifError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
        elif place.exists():
            found.append(place)
        else:
            raise SamifError(f"{place} does not exist; give images or folders of images")
    if not found:
        raise SamifError(f"no image ({', '.join(SUFFIXES)}) in {', '.join(map(str, places))}; give another folder")
    return found


def predict(
    segmenter: Segmenter,
    images: Sequence[Path],
    out: Path,
    min_score: float,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Segment image files; write `out/results.json` and an overlay per image.

    results.json: {"schema": 1, "images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}],
    "annotations": COCO results with `category_id`, `score`, `segmentation` (RLE), `bbox`}; unknown objects have the
    last category. All images are checked before anything is written.

    Raises:
        SamifError: an image cannot be read (names the file).
    """
    from samif.inference.overlay import draw_instances
    from samif.inference.segment import UNKNOWN

    names = [*segmenter.classifier.classes, UNKNOWN]
    ids = {name: i + 1 for i, name in enumerate(names)}
    stems = _stems(images)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    predictions: list[Prediction] = []
    for path in images:
        inspect_image(path)  # a broken image is refused before anything is written
    out.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(images):
        pixels = read_image(path)
        instances = segmenter.segment(pixels).above(min_score)
        predictions.append(Prediction(path, instances))
        records.append({"id": index + 1, "file_name": path.name, "width": instances.width, "height": instances.height})
        for row in range(len(instances)):
            annotations.append(
                {
                    "image_id": index + 1,
                    "category_id": ids[instances.labels[row]],
                    "segmentation": instances.masks[row],
                    "bbox": [float(v) for v in instances.boxes[row]],
                    "score": round(float(instances.scores[row]), 6),
                }
            )
        drawn = draw_instances(pixels, instances.masks, list(instances.labels), [float(s) for s in instances.scores])
        _save_jpeg(out / f"{stems[index]}.overlay.jpg", drawn)
        advance(1)
    categories = [{"id": id_, "name": name} for name, id_ in ids.items()]
    content = {"schema": 1, "images": records, "categories": categories, "annotations": annotations}
    files.commit(out / "results.json", (json.dumps(content) + "\n").encode())
    return predictions


def _stems(images: Sequence[Path]) -> list[str]:
    """Names for overlays; images of one name from several folders are numbered."""
    taken = {path.stem for path in images}
    stems: list[str] = []
    for path in images:
        stem = path.stem
        if stem in stems:
            stem = next(name for number in count(2) if (name := f"{path.stem}-{number}") not in taken)
            taken.add(stem)
        stems.append(stem)
    return stems


def _save_jpeg(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    with files.written(path) as draft:
        Image.fromarray(pixels).save(draft, format="JPEG", quality=92)
