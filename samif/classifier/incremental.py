"""An incremental session: new rows from K labelled instances each, on frozen features (SAM-IF, incremental step).

Features of every shot are extracted several times, from rotated images and several prompts: augmentation that takes
seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.heads import Array
from samif.classifier.model import Classifier
from samif.classifier.samples import instance_samples
from samif.config import FeaturePart, IncrementalParams
from samif.dataset.images import read_image
from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.masks.rle import decode, encode
from samif.sam.decoder import InstanceDecoder

InstanceKey = tuple[int, int]
"""(image id, annotation id) of a labelled instance."""
Shots = Mapping[str, Sequence[InstanceKey]]
"""Class -> the labelled instances to learn it from."""
EncodeImages = Callable[[Sequence[NDArray[np.uint8]]], Tensor]
"""Images (H, W, 3) uint8 RGB -> embeddings (N, C, h, w)."""


def learn_session(classifier: Classifier, shots: Shots, shot_features: Mapping[InstanceKey, Array]) -> Classifier:
    """The classifier with one more row per class of `shots`, in their order; its other rows untouched.

    Args:
        shot_features: samples (S, D) of each instance, from `extract_shot_features`.
    """
    for name, keys in shots.items():
        classifier = classifier.add(name, [shot_features[key] for key in keys])
    return classifier


def extract_shot_features(
    keys: Iterable[InstanceKey],
    dataset: Dataset,
    decoder: InstanceDecoder,
    encode_images: EncodeImages,
    parts: Sequence[FeaturePart],
    params: IncrementalParams,
    encode_semantic: EncodeImages | None = None,
    advance: Callable[[int], None] = lambda _: None,
    tiles: int = 1,
) -> dict[InstanceKey, Array]:
    """Samples (S, D) of labelled instances, from the upright and the rotated image and several prompts each.

    The samples of an instance depend on its image and its label alone, not on the other shots of a draw.

    Args:
        parts: features to take, side by side.
        encode_semantic: the semantic encoder, where `parts` names its features.
        advance: called with 1 for each image that is done.
        tiles: tiles per image side that `encode_images` makes.

    Raises:
        DataError: the data set has no such image, or its file cannot be read.
    """
    wanted: dict[int, list[int]] = {}
    for image_id, annotation_id in keys:
        wanted.setdefault(image_id, []).append(annotation_id)
    shot_features: dict[InstanceKey, Array] = {}
    for image_id, ids in wanted.items():
        image = dataset.image(image_id)
        pixels = read_image(dataset.path_of(image))
        labelled = {a.id: a for a in image.annotations}
        found: dict[int, list[Array]] = {}
        for degrees in (0, *params.rotations):
            shown = [np.ascontiguousarray(np.rot90(pixels, degrees // 90))]
            embedding = encode_images(shown)[0]
            semantic = encode_semantic(shown)[0] if encode_semantic is not None else None
            for id_ in ids:
                rng = np.random.default_rng([image_id, id_, degrees])
                turned = _turn_annotation(labelled[id_], degrees)
                found.setdefault(id_, []).extend(
                    instance_samples(
                        decoder, embedding, _turn_image(image, degrees), [turned], params.prompts_per_shot, parts,
                        rng, semantic, tiles,
                    )
                )  # fmt: skip
        shot_features |= {(image_id, id_): np.concatenate(samples) for id_, samples in found.items()}
        advance(1)
    return shot_features


def _turn_annotation(annotation: Annotation, degrees: int) -> Annotation:
    """The annotation in the image rotated counter-clockwise by a multiple of 90 degrees."""
    if degrees == 0:
        return annotation
    turned = np.rot90(decode([annotation.rle])[0], degrees // 90)
    rle = encode(turned[None])[0]
    return Annotation(annotation.id, annotation.category, rle, annotation.crowd, annotation.bbox, annotation.area)


def _turn_image(image: ImageRecord, degrees: int) -> ImageRecord:
    if degrees % 180 == 0:
        return image
    return ImageRecord(image.id, image.file_name, image.height, image.width, image.sha256, image.annotations)
