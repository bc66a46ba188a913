"""An incremental session: new rows from K labelled instances each, on frozen features (SAM-IF, incremental step).

Every shot is looked at several times: turned pictures and several prompts. That costs seconds and stands in for
pictures that nobody took.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.model import Array, Classifier
from samif.classifier.samples import instance_samples
from samif.config import IncrementalParams
from samif.dataset.model import Annotation, Dataset, Picture
from samif.dataset.pictures import read_picture
from samif.masks.rle import decode, encode
from samif.sam.decoder import InstanceDecoder

Shots = Mapping[str, Sequence[tuple[int, int]]]
"""Class -> (picture id, annotation id) of each labelled instance to learn from."""


def learn_session(
    classifier: Classifier,
    decoder: InstanceDecoder,
    dataset: Dataset,
    shots: Shots,
    encode_pictures: Callable[[Sequence[NDArray[np.uint8]]], Tensor],
    params: IncrementalParams,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
    encode_semantic: Callable[[Sequence[NDArray[np.uint8]]], Tensor] | None = None,
) -> Classifier:
    """The classifier with one more row per class of `shots`, in their order; its other rows untouched.

    Args:
        encode_pictures: pictures (H, W, 3) -> embeddings (N, C, h, w).
        advance: called with 1 for each picture that is done.
        encode_semantic: pictures (H, W, 3) -> semantic features (N, S, g, g), where the classifier's parts name them.
    """
    wanted: dict[int, list[tuple[str, int]]] = {}
    for name, places in shots.items():
        for picture_id, annotation_id in places:
            wanted.setdefault(picture_id, []).append((name, annotation_id))
    looks: dict[tuple[str, int], list[Array]] = {}
    for picture_id, items in wanted.items():
        picture = dataset.picture(picture_id)
        pixels = read_picture(dataset.path_of(picture))
        by_id = {a.id: a for a in picture.annotations}
        rng = np.random.default_rng([seed, picture_id])
        for degrees in (0, *params.rotations):
            annotations = [_turn_annotation(by_id[annotation_id], degrees) for _, annotation_id in items]
            turned = [np.ascontiguousarray(np.rot90(pixels, degrees // 90))]
            embedding = encode_pictures(turned)[0]
            semantic = encode_semantic(turned)[0] if encode_semantic is not None else None
            samples = instance_samples(
                decoder, embedding, _turn_picture(picture, degrees), annotations, params.prompts_per_shot,
                classifier.space.parts, rng, semantic,
            )  # fmt: skip
            for item, found in zip(items, samples, strict=True):
                looks.setdefault(item, []).append(found)
        advance(1)
    for name, places in shots.items():
        classifier = classifier.add(name, [np.concatenate(looks[name, annotation]) for _, annotation in places])
    return classifier


def _turn_annotation(annotation: Annotation, degrees: int) -> Annotation:
    """The annotation in the picture turned counter-clockwise by a multiple of 90 degrees."""
    if degrees == 0:
        return annotation
    turned = np.rot90(decode([annotation.rle])[0], degrees // 90)
    rle = encode(turned[None])[0]
    return Annotation(annotation.id, annotation.category, rle, annotation.crowd, annotation.bbox, annotation.area)


def _turn_picture(picture: Picture, degrees: int) -> Picture:
    if degrees % 180 == 0:
        return picture
    return Picture(picture.id, picture.file_name, picture.height, picture.width, picture.sha256, picture.annotations)
