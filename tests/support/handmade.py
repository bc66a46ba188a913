"""Small things made by hand that several tests share: masks, annotations, proposals, classifiers, a random tiny."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import nn

from samif.classifier.model import Array, Classifier, FeatureSpace, HeadName
from samif.config import DrawnParams
from samif.dataset.coco import read_coco
from samif.dataset.draw.line import draw_line
from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.inference.propose import Proposals
from samif.masks.rle import Rle, areas, boxes, encode
from samif.sam.tiny import build_tiny
from samif.sam.zoo import LoadedSam


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every parameter moved at random, so that each of them shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return module.eval().requires_grad_(False)


def random_tiny(seed: int = 0) -> Sam:
    """A frozen `tiny` of random weights."""
    torch.manual_seed(seed)
    return shaken(build_tiny(), seed)


def loaded(sam: Sam) -> LoadedSam:
    """As if read from a file."""
    return LoadedSam(sam=sam, name="tiny", encoder_digest="0" * 64, file_sha256="1" * 64)


def draw_dataset(folder: Path, size: int = 160, base_images: int = 3, mixed_images: int = 3) -> Dataset:
    """Drawn training scenes of the demo line, read as somebody's own images would be."""
    draw_line(folder, DrawnParams(base_images=base_images, mixed_images=mixed_images, val_images=1, size=size))
    dataset, findings = read_coco(folder / "train" / "images", folder / "train" / "annotations.json")
    assert not [finding for finding in findings if finding.level == "error"]
    return dataset


def rectangle(shape: tuple[int, int], top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
    """A mask (H, W) with one rectangle set."""
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def pixels(shape: tuple[int, int], count: int, start: int = 0) -> NDArray[np.bool_]:
    """A mask (H, W) with `count` pixels set in reading order, from pixel `start` on."""
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    mask[start : start + count] = True
    return mask.reshape(shape)


def rle(mask: NDArray[np.bool_]) -> Rle:
    return encode(mask[None])[0]


def annotation(number: int, category: str, mask: NDArray[np.bool_], crowd: bool = False) -> Annotation:
    code = rle(mask)
    x, y, width, height = (float(v) for v in boxes([code])[0])
    return Annotation(number, category, code, crowd, (x, y, width, height), float(areas([code])[0]))


def image(number: int, shape: tuple[int, int], *annotations: Annotation) -> ImageRecord:
    return ImageRecord(number, f"{number}.png", shape[1], shape[0], f"{number:064d}", annotations)


def proposals(
    masks: Sequence[NDArray[np.bool_]],
    tokens: NDArray[np.float32] | None = None,
    quality: Sequence[float] | None = None,
) -> Proposals:
    """Proposals with these masks and tokens; `quality` is their predicted IoU, objectness is 1."""
    count = len(masks)
    return Proposals(
        [rle(mask) for mask in masks],
        np.array(quality if quality is not None else [1.0] * count, dtype=np.float32),
        np.ones(count, dtype=np.float32),
        tokens if tokens is not None else np.zeros((count, 1), dtype=np.float32),
        np.zeros((count, 1), dtype=np.float32),
    )


def space(
    width: int, background: Array, head: HeadName = "lda", temperature: float = 1.0, bias: float = 0.0
) -> FeatureSpace:
    """A space of token features that neither centres nor projects."""
    return FeatureSpace(
        ("token",), head, np.zeros(width, np.float32), np.eye(width, dtype=np.float32), background, temperature, bias
    )


def classifier(means: Mapping[str, Sequence[float]], background: Sequence[float], head: HeadName = "lda") -> Classifier:
    """One row per class, just there, each as if from very many instances; one background prototype."""
    rows = np.array(list(means.values()), dtype=np.float32).reshape(len(means), len(background))
    counts = np.full(len(means), 10**9, dtype=np.int64)
    return Classifier(space(len(background), np.array([background], np.float32), head), tuple(means), rows, counts)
