"""Everything in a picture, without names: encode and propose, against the official SamAutomaticMaskGenerator.

Both use the same encoder and decoder weights. The official generator runs twice: with its own thresholds, and with all
of them off, because they suit the official weights only; recall is compared with the better of the two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator

from benchmarks.measure import Comparison, summarise, timed
from samif.config import DrawnParams, ProposeParams
from samif.dataset.coco import read_coco
from samif.dataset.draw.line import draw_line
from samif.dataset.model import Dataset, Picture
from samif.dataset.pictures import read_picture
from samif.masks.rle import Rle, encode, overlaps
from samif.propose import propose
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.zoo import load_sam

TIMED, SCORED, MASKS = 3, 12, 100
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
Pixels = NDArray[np.uint8]
Segment = Callable[[Pixels], list[Rle]]


@dataclass(frozen=True)
class _Result:
    seconds: list[float]
    recall: float


def run(images: Path | None = None, annotations: Path | None = None) -> list[Comparison]:
    """On scenes of the demo line, and on pictures of one's own where a COCO file is given."""
    with tempfile.TemporaryDirectory(prefix="samif-bench-") as name:
        draw_line(Path(name), DrawnParams(seed=5, base_pictures=1, mixed_pictures=1, val_pictures=SCORED))
        lines = [
            _compare("demo line", *read_coco(Path(name) / "val" / "images", Path(name) / "val" / "annotations.json"))
        ]
    if images is not None and annotations is not None:
        lines.append(_compare(images.parent.name, *read_coco(images, annotations)))
    return lines


def _compare(what: str, dataset: Dataset, _: object) -> Comparison:
    loaded = load_sam("tiny")
    encoder, decoder = ImageEncoder(loaded), InstanceDecoder.of(loaded.sam)

    def ours(picture: Pixels) -> list[Rle]:
        return propose(decoder, encoder.encode([picture])[0], encoder.frame(picture), ProposeParams()).masks

    pictures = [p for p in dataset.pictures if any(not a.crowd for a in p.annotations)][:SCORED]
    own = _measure(ours, dataset, pictures)
    official = [
        _measure(_official(SamAutomaticMaskGenerator(loaded.sam, **settings)), dataset, pictures)
        for settings in ({}, {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0})
    ]
    note = (
        f"{len(pictures)} pictures, {TIMED} timed; average recall at {MASKS} masks: ours {own.recall:.1f}, official "
        f"{official[0].recall:.1f} with its thresholds, {official[1].recall:.1f} without"
    )
    pairs = list(zip(own.seconds, official[0].seconds, strict=True))
    return summarise(f"everything mode, `tiny`, {what}", "SamAutomaticMaskGenerator, 32 x 32 grid", pairs, note)


def _official(generator: SamAutomaticMaskGenerator) -> Segment:
    def segment(picture: Pixels) -> list[Rle]:
        found = sorted(generator.generate(picture), key=lambda record: -record["predicted_iou"])
        return encode(np.stack([r["segmentation"] for r in found])) if found else []

    return segment


def _measure(segment: Segment, dataset: Dataset, pictures: Sequence[Picture]) -> _Result:
    segment(read_picture(dataset.path_of(pictures[0])))  # warm
    seconds, best = [], []
    for index, picture in enumerate(pictures):
        pixels = read_picture(dataset.path_of(picture))
        masks, taken = timed(lambda pixels=pixels: segment(pixels))
        if index < TIMED:
            seconds.append(taken)
        truth = [a.rle for a in picture.annotations if not a.crowd]
        best += list(overlaps(truth, masks[:MASKS]).max(axis=1, initial=0.0))
    recall = float((np.array(best)[:, None] >= THRESHOLDS).mean() * 100)
    return _Result(seconds, recall)
