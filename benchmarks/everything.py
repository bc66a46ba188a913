"""Everything in an image, without names: encode and propose, against the official SamAutomaticMaskGenerator.

Both use the same encoder and decoder weights. The official generator runs twice: with its own thresholds, and with all
of them off, because they suit the official weights only; recall is compared with the better of the two.

The vit_b architecture has random weights here, which find nothing worth a recall. Their time is taken at our worst and
the official's best: we draw and write out the mask of every prompt, its thresholds drop nearly all of them early.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator

from benchmarks.measure import Comparison, summarise, timed
from benchmarks.weights import random_vit_b
from flows.runtime.device import device_here
from samif.config import DrawnParams, ProposeParams
from samif.dataset.coco import read_coco
from samif.dataset.draw.line import draw_line
from samif.dataset.images import read_image
from samif.dataset.model import Dataset
from samif.inference.propose import propose
from samif.masks.rle import Rle, encode, overlaps
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.zoo import load_sam

IMAGES, MASKS, VIT_ROUNDS = 12, 100, 2
GRID = "SamAutomaticMaskGenerator, 32 x 32 grid"
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
DEFAULTS = ProposeParams()
OF_PHOTO = ProposeParams(multimask=True, duplicate_iou=0.65, max_proposals=200)
"""What `samif init` sets for `photo`."""
Pixels = NDArray[np.uint8]
Segment = Callable[[Pixels], list[Rle]]


def run(images: Path | None = None, annotations: Path | None = None) -> Iterator[Comparison]:
    """On scenes of the demo line, and on images of one's own where a COCO file is given."""
    with tempfile.TemporaryDirectory(prefix="samif-bench-") as name:
        draw_line(Path(name), DrawnParams(seed=5, base_images=1, mixed_images=1, val_images=IMAGES))
        val = Path(name) / "val"
        yield _compare("demo line", read_coco(val / "images", val / "annotations.json")[0])
    if images is not None and annotations is not None:
        dataset = read_coco(images, annotations)[0]
        for tiles in (1, 2):
            yield _compare(images.parent.name, dataset, "photo", tiles, OF_PHOTO)
    yield _compare_vit_b()


def _compare(
    what: str, dataset: Dataset, name: str = "tiny", tiles: int = 1, params: ProposeParams = DEFAULTS
) -> Comparison:
    loaded, device = load_sam(name), device_here()
    loaded.sam.to(device)  # whose modules ours shares
    encoder, decoder = ImageEncoder(loaded, device=device, tiles=tiles), InstanceDecoder.of(loaded.sam).eval()

    def ours(image: Pixels) -> list[Rle]:
        return propose(decoder, encoder.encode([image])[0], encoder.frame(image), params).masks

    images = [p for p in dataset.images if any(not a.crowd for a in p.annotations)][:IMAGES]
    segmenters = [
        ours,
        _official(SamAutomaticMaskGenerator(loaded.sam)),
        _official(SamAutomaticMaskGenerator(loaded.sam, pred_iou_thresh=0.0, stability_score_thresh=0.0)),
    ]
    for segment in segmenters:
        segment(read_image(dataset.path_of(images[0])))  # warm
    seconds: list[list[float]] = []
    best: list[list[float]] = [[] for _ in segmenters]
    for image in images:
        pixels = read_image(dataset.path_of(image))
        truth = [a.rle for a in image.annotations if not a.crowd]
        answers = [timed(partial(segment, pixels)) for segment in segmenters]  # in turn
        seconds.append([taken for _, taken in answers])
        for overlap, (masks, _) in zip(best, answers, strict=True):
            overlap += list(overlaps(truth, masks[:MASKS]).max(axis=1, initial=0.0))
    recall = [float((np.array(overlap)[:, None] >= THRESHOLDS).mean() * 100) for overlap in best]
    note = (
        f"{len(images)} images; average recall at {MASKS} masks: ours {recall[0]:.1f}, official "
        f"{recall[1]:.1f} with its thresholds, {recall[2]:.1f} without"
    )
    pairs = [(own, official) for own, official, _ in seconds]
    with_tiles = f" with {tiles} x {tiles} tiles" if tiles > 1 else ""
    return summarise(f"all masks of an image, `{name}`{with_tiles}, {what}", GRID, pairs, note)


def _compare_vit_b() -> Comparison:
    with tempfile.TemporaryDirectory(prefix="samif-bench-") as name:
        loaded, device = load_sam("vit_b", random_vit_b(Path(name))), device_here()
    loaded.sam.to(device)
    encoder, decoder = ImageEncoder(loaded, "bfloat16", device), InstanceDecoder.of(loaded.sam).eval()
    params = ProposeParams(min_objectness=0.0, duplicate_iou=1.0)
    image = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)

    def ours() -> int:
        return len(propose(decoder, encoder.encode([image])[0], encoder.frame(image), params))

    generator = SamAutomaticMaskGenerator(loaded.sam)
    ours()
    pairs = [(timed(ours)[1], timed(partial(generator.generate, image))[1]) for _ in range(VIT_ROUNDS)]
    note = f"random weights, 1024 x 768 pixels; ours with {params.points} prompts in bfloat16, {ours()} masks kept"
    return summarise("all masks of an image, vit_b architecture", GRID, pairs, note)


def _official(generator: SamAutomaticMaskGenerator) -> Segment:
    def segment(image: Pixels) -> list[Rle]:
        found = sorted(generator.generate(image), key=lambda record: -record["predicted_iou"])
        return encode(np.stack([r["segmentation"] for r in found])) if found else []

    return segment
