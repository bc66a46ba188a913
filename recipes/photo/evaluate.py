"""How well `photo` outlines an object from one click: mean IoU over images that it was never trained on.

python -m recipes.photo.evaluate WEIGHTS ../shared/data/coco_dev ../shared/data/tote_dev
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from segment_anything.modeling import Sam
from torch.nn import functional as F

from recipes.photo.dataset import Photographs
from recipes.photo.weights import load
from samif.sam.decoder import InstanceDecoder
from samif.sam.photo import IMAGE_SIZE as S
from samif.sam.photo import PIXEL_MEAN

MOST_OBJECTS = 12


@torch.no_grad()
def one_click_iou(sam: Sam, folder: Path, images: int, seed: int = 3) -> dict[str, float]:
    """Mean IoU in image pixels from one random interior point per object, of at most 12 objects an image.

    Returns:
        `single` of the single mask, `best` of the best of all four masks, `objects` their number.
    """
    decoder = InstanceDecoder.of(sam)
    photographs, rng = Photographs(folder), np.random.default_rng(seed)
    single, best = [], []
    for index in rng.permutation(len(photographs))[:images]:
        pixels = photographs.pixels(int(index))
        h, w = pixels.shape[:2]
        masks = [coco_mask.decode(code).astype(bool) for code in photographs.codes(int(index))]
        masks = [mask for mask in masks if mask.sum() >= 60][:MOST_OBJECTS]
        if not masks:
            continue
        scale = S / max(h, w)
        size = round(w * scale), round(h * scale)
        x = np.full((S, S, 3), PIXEL_MEAN, np.float32)
        x[: size[1], : size[0]] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        points = []
        for mask in masks:
            ys, xs = np.nonzero(mask)
            j = int(rng.integers(len(ys)))
            points.append(((xs[j] + 0.5) * scale, (ys[j] + 0.5) * scale))
        batch = (torch.from_numpy(x).permute(2, 0, 1)[None] - sam.pixel_mean) / sam.pixel_std
        embeddings = sam.image_encoder(batch)
        answer, _ = decoder(embeddings, torch.tensor([points], dtype=torch.float32))
        logits = F.interpolate(answer.masks, (S, S), mode="bilinear", align_corners=False)[..., : size[1], : size[0]]
        logits = F.interpolate(logits, (h, w), mode="bilinear", align_corners=False)
        for found, mask in zip(logits.numpy() > 0, masks, strict=True):
            iou = [float((f & mask).sum() / max(1, (f | mask).sum())) for f in found]
            single.append(iou[0]), best.append(max(iou))
    return {"single": float(np.mean(single)), "best": float(np.mean(best)), "objects": len(single)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=60)
    args = parser.parse_args()
    sam = load(args.weights).eval()
    for folder in args.folders:
        print(folder.name, json.dumps(one_click_iou(sam, folder, args.images)), flush=True)


if __name__ == "__main__":
    main()
