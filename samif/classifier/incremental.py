"""An incremental session: new rows from K labelled instances each, on frozen features (SAM-IF, incremental step).

Every shot is looked at several times: turned pictures and several prompts. That costs seconds and stands in for
pictures that nobody took.
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
from samif.dataset.model import Annotation, Dataset, Picture
from samif.dataset.pictures import read_picture
from samif.masks.rle import decode, encode
from samif.sam.decoder import InstanceDecoder

Shots = Mapping[str, Sequence[tuple[int, int]]]
"""Class -> (picture id, annotation id) of each labelled instance to learn from."""


InstanceKey = tuple[int, int]
"""(picture id, annotation id) of a labelled instance."""
EncodePictures = Callable[[Sequence[NDArray[np.uint8]]], Tensor]
"""Pictures (H, W, 3) -> what an encoder sees in them (N, C, h, w)."""


def learn_session(
    classifier: Classifier, shots: Shots, shot_features: Mapping[InstanceKey, Array], params: IncrementalParams
) -> Classifier:
    """The classifier with one more row per class of `shots`, in their order; its other rows untouched.

    Args:
        shot_features: samples (S, D) of each instance, from `extract_shot_features`.
    """
    for name, keys in shots.items():
        classifier = classifier.add(name, [shot_features[key] for key in keys], params.outliers == "downweight")
    return classifier


def extract_shot_features(
    keys: Iterable[InstanceKey],
    dataset: Dataset,
    decoder: InstanceDecoder,
    encode_pictures: EncodePictures,
    parts: Sequence[FeaturePart],
    params: IncrementalParams,
    encode_semantic: EncodePictures | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[InstanceKey, Array]:
    """Samples (S, D) of labelled instances: each seen upright and turned, from several prompts.

    What is seen of an instance depends on its picture and its label alone, so that any draw of shots finds the same.

    Args:
        encode_semantic: the semantic encoder, where `parts` names its features.
        advance: called with 1 for each picture that is done.
    """
    wanted: dict[int, list[int]] = {}
    for picture_id, annotation_id in keys:
        wanted.setdefault(picture_id, []).append(annotation_id)
    shot_features: dict[InstanceKey, Array] = {}
    for picture_id, ids in wanted.items():
        picture = dataset.picture(picture_id)
        pixels = read_picture(dataset.path_of(picture))
        labelled = {a.id: a for a in picture.annotations}
        found: dict[int, list[Array]] = {}
        for degrees in (0, *params.rotations):
            shown = [np.ascontiguousarray(np.rot90(pixels, degrees // 90))]
            embedding = encode_pictures(shown)[0]
            semantic = encode_semantic(shown)[0] if encode_semantic is not None else None
            for id_ in ids:
                rng = np.random.default_rng([picture_id, id_, degrees])
                turned = _turn_annotation(labelled[id_], degrees)
                found.setdefault(id_, []).extend(
                    instance_samples(
                        decoder, embedding, _turn_picture(picture, degrees), [turned], params.prompts_per_shot, parts,
                        rng, semantic,
                    )
                )  # fmt: skip
        shot_features |= {(picture_id, id_): np.concatenate(samples) for id_, samples in found.items()}
        advance(1)
    return shot_features


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
