"""Draw the training pool of `tiny`: scenes of random objects, as two memory-mapped arrays.

    python -m recipes.tiny.scenes POOL --scenes 12000

Two thirds of the objects come from a library of fixed random kinds, so that a class loss can be had; the rest
are new every time. With --base, half of them are base parts of the demo line instead. Its novel parts are never drawn.
With --camera, scenes are drawn larger, pass through JPEG and are scaled down, as the encoder meets images of a line.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from samif.dataset.draw.part import Part
from samif.dataset.draw.parts import BASE_PARTS, make_parts
from samif.dataset.draw.scene import Item, Scene, compose
from samif.dataset.draw.variety import random_part

RANDOM_KINDS = 500
KINDS = RANDOM_KINDS + len(BASE_PARTS)
SIZE = 256
MAX_ITEMS = 14
BLOCK = 200
CAMERA_SIZE = 320
QUALITY = (60, 96)
"""Of the JPEG that --camera passes images through."""


def library() -> list[Part]:
    """The fixed kinds of the class loss."""
    parts = make_parts()
    drawn = [random_part(np.random.default_rng([7, kind])) for kind in range(RANDOM_KINDS)]
    return drawn + [parts[name] for name in BASE_PARTS]


def as_delivered(rng: np.random.Generator, scene: Scene) -> Scene:
    """A scene of any size as the encoder sees its JPEG: (SIZE, SIZE), labels by the nearest pixel."""
    data = io.BytesIO()
    Image.fromarray(scene.image).save(data, "JPEG", quality=int(rng.integers(*QUALITY)))
    image = Image.open(data).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    labels = Image.fromarray(scene.labels).resize((SIZE, SIZE), Image.Resampling.NEAREST)
    return Scene(np.asarray(image), np.asarray(labels), scene.kinds)


def draw_block(
    block: int, seed: int, easy: bool, base: bool, camera: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One block of scenes: images (B, S, S, 3), labels (B, S, S), kinds (B, MAX_ITEMS) with -1 for none."""
    rng = np.random.default_rng([seed, block])
    kinds_of = library()
    images = np.zeros((BLOCK, SIZE, SIZE, 3), np.uint8)
    labels = np.zeros((BLOCK, SIZE, SIZE), np.uint8)
    kinds = np.full((BLOCK, MAX_ITEMS), -1, np.int16)
    for i in range(BLOCK):
        items = []
        most, spread = (8, 0.3) if easy else (MAX_ITEMS, 0.45)
        for _ in range(int(rng.integers(2 if easy else 1, most + 1))):
            kind = int(rng.integers(RANDOM_KINDS)) if rng.random() < 0.67 else -1
            if base and rng.random() < 0.5:
                kind = int(rng.integers(RANDOM_KINDS, KINDS))
            part = kinds_of[kind] if kind >= 0 else random_part(rng)
            items.append(Item(part, kind, float(np.exp(rng.normal(0.0, spread)))))
        if rng.random() < 0.3:  # several of one kind, as on a line
            items = [items[int(rng.integers(min(3, len(items))))] for _ in items]
        scale = 1.15 if easy else float(rng.choice([0.7, 1.0, 1.0, 1.6]))
        crowding = rng.uniform(0.0, 0.6) if easy else rng.uniform(0.1, 0.8)
        size = CAMERA_SIZE if camera else SIZE
        scale *= size / SIZE
        scene = compose(rng, items, size, (18 * scale, 44 * scale), crowding=crowding)
        if camera:
            scene = as_delivered(rng, scene)
        images[i], labels[i] = scene.image, scene.labels
        kinds[i, : len(scene.kinds)] = scene.kinds
    return images, labels, kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--scenes", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--easy", action="store_true", help="fewer, larger objects: what the first shapes are learnt from"
    )
    parser.add_argument("--base", action="store_true", help="base parts of the demo line among the objects")
    parser.add_argument("--camera", action="store_true", help="drawn larger, through JPEG, scaled down")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    blocks = args.scenes // BLOCK
    draw = functools.partial(draw_block, seed=args.seed, easy=args.easy, base=args.base, camera=args.camera)
    args.pool.mkdir(parents=True, exist_ok=True)
    shapes = {"images": (SIZE, SIZE, 3), "labels": (SIZE, SIZE)}
    create = np.lib.format.open_memmap
    out = {k: create(args.pool / f"{k}.npy", "w+", np.uint8, (blocks * BLOCK, *s)) for k, s in shapes.items()}
    all_kinds = create(args.pool / "kinds.npy", "w+", np.int16, (blocks * BLOCK, MAX_ITEMS))
    with ProcessPoolExecutor(args.workers) as pool:
        for b, (images, labels, kinds) in enumerate(pool.map(draw, range(blocks))):
            rows = slice(b * BLOCK, (b + 1) * BLOCK)
            out["images"][rows], out["labels"][rows], all_kinds[rows] = images, labels, kinds
            print(f"{(b + 1) * BLOCK}/{blocks * BLOCK} scenes", flush=True)
    (args.pool / "pool.json").write_text(json.dumps({"scenes": blocks * BLOCK, "seed": args.seed, "kinds": KINDS}))


if __name__ == "__main__":
    main()
