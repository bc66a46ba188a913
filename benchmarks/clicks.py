"""Simulated labelling: clicks and seconds per object until the outline has an IoU of 0.9 with the label.

A person is simulated who clicks at the centre of the largest error: the pixel farthest from the border of the largest
connected area that is missing (foreground) or too much (background), up to 20 clicks per object.

python -m benchmarks.clicks --data NAME=FOLDER ... [--encoder tiny photo] [--objects 120] [--out CLICKS.md]

FOLDER holds `images/` and `instances.json`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flows.runtime.tuning import tune_process
from samif.config import ReadRules
from samif.dataset.coco import read_coco
from samif.dataset.images import read_image
from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.inference.interactive import Click, PromptedImage, Prompts, is_same_object, part_around
from samif.masks.rle import decode, encode_whole
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, View
from samif.sam.zoo import load_sam

MOST_CLICKS = 20
WANTED = 0.9
LEAST_PIXELS = 64
"""Smaller objects are left out: a pixel of their border is a tenth of them."""
PERSON_SECONDS = 1.5
"""A person's time per click, to look and to aim, added to the computed seconds in the last column."""


@dataclass(frozen=True)
class Labelled:
    """One simulated object: IoU after each click, and seconds of each answer."""

    ious: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def clicks(self) -> int:
        """Clicks until the IoU was reached; MOST_CLICKS where it was not."""
        return next((i for i, iou in enumerate(self.ious, start=1) if iou >= WANTED), MOST_CLICKS)

    @property
    def reached(self) -> bool:
        return max(self.ious) >= WANTED

    def after(self, clicks: int) -> float:
        """IoU after so many clicks; a person stops when it is good enough."""
        return self.ious[min(clicks, len(self.ious)) - 1]


class Simulator:
    """An encoder with its own decoder, and a person who clicks.

    Args:
        parts: whether small objects are looked at in their part of the image after the first click.
    """

    def __init__(self, name: str, parts: bool) -> None:
        self._encoder, self._parts = ImageEncoder(load_sam(name)), parts
        self._decoder = InstanceDecoder.of(self._encoder.sam).eval().requires_grad_(False)
        self._multimask = name == "photo"

    def prepare(self, pixels: NDArray[np.uint8], part: tuple[int, int, int, int] | None = None) -> PromptedImage:
        height, width = pixels.shape[:2]
        x, y, w, h = part or (0, 0, width, height)
        cut = np.ascontiguousarray(pixels[y : y + h, x : x + w])
        view = View(x, y, Frame(h, w, self._encoder.image_size))
        embedding = self._encoder.encode([cut])[0]
        return PromptedImage(self._decoder, embedding, view, height, width, self._multimask)

    def label(self, pixels: NDArray[np.uint8], image: PromptedImage, target: NDArray[np.bool_]) -> Labelled:
        """Click until the outline is good enough."""
        mask: NDArray[np.bool_] | None = None
        clicks: tuple[Click, ...] = ()
        ious: list[float] = []
        seconds: list[float] = []
        for _ in range(MOST_CLICKS):
            clicks = (*clicks, next_click(target, mask))
            started = time.perf_counter()
            mask = image.answer(Prompts(clicks), mask).mask
            if self._parts and len(clicks) == 1 and (part := part_around(encode_whole(mask))) is not None:
                seen = self.prepare(pixels, part)
                x, y, width, height = part
                if x <= clicks[0].x < x + width and y <= clicks[0].y < y + height:
                    sharper = seen.answer(Prompts(clicks)).mask
                    if is_same_object(mask, sharper):
                        image, mask = seen, sharper
            encode_whole(mask)
            seconds.append(time.perf_counter() - started)
            ious.append(float((mask & target).sum() / (mask | target).sum()))
            if ious[-1] >= WANTED:
                break
        return Labelled(tuple(ious), tuple(seconds))


def next_click(target: NDArray[np.bool_], mask: NDArray[np.bool_] | None) -> Click:
    """The centre of the largest error."""
    best, where = 0, Click(0.0, 0.0, True)
    for foreground, wrong in (
        (True, target if mask is None else target & ~mask),
        (False, None if mask is None else mask & ~target),
    ):
        if wrong is None or not wrong.any():
            continue
        labels, _ = ndimage.label(wrong)
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        if sizes.max() > best:
            best = int(sizes.max())
            area = labels == sizes.argmax()
            rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
            top, left = rows[0], columns[0]
            depth = ndimage.distance_transform_edt(np.pad(area[top : rows[-1] + 1, left : columns[-1] + 1], 1))
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            where = Click(float(left + x - 1 + 0.5), float(top + y - 1 + 0.5), foreground)
    return where


def chosen(dataset: Dataset, count: int, skip: int = 0) -> Iterator[tuple[ImageRecord, list[Annotation]]]:
    """Up to `count` objects, drawn with a fixed seed, by image; those behind the first `skip` that are drawn."""
    objects = [
        (image.id, place)
        for image in dataset.images
        for place, a in enumerate(image.annotations)
        if not a.crowd and a.area >= LEAST_PIXELS
    ]
    rng = np.random.default_rng(0)
    wanted = {objects[k] for k in rng.permutation(len(objects))[skip : skip + count]}
    for image in dataset.images:
        if some := [a for place, a in enumerate(image.annotations) if (image.id, place) in wanted]:
            yield image, some


def run(name: str, dataset: Dataset, encoder: str, parts: bool, count: int, skip: int = 0) -> str:
    """One row of the table."""
    simulator = Simulator(encoder, parts)
    done: list[Labelled] = []
    encoding: list[float] = []
    for record, objects in chosen(dataset, count, skip):
        pixels = read_image(dataset.path_of(record))
        started = time.perf_counter()
        image = simulator.prepare(pixels)
        encoding.append(time.perf_counter() - started)
        done += [simulator.label(pixels, image, decode([a.rle])[0]) for a in objects]
    times = sorted(1000 * s for labelled in done for s in labelled.seconds)
    clicks = [labelled.clicks for labelled in done]
    seconds = statistics.mean(sum(labelled.seconds) + PERSON_SECONDS * labelled.clicks for labelled in done)
    cells = [
        name, f"`{encoder}`", "whole, then part" if parts else "whole", str(len(done)),
        *(f"{statistics.mean(labelled.after(n) for labelled in done):.3f}" for n in (1, 2, 3, 5)),
        f"{statistics.mean(clicks):.1f}", f"{statistics.median(clicks):g}",
        f"{100 * statistics.mean(labelled.reached for labelled in done):.0f} %",
        f"{1000 * statistics.mean(encoding):.0f}", f"{statistics.median(times):.0f}",
        f"{times[int(0.95 * (len(times) - 1))]:.0f}",
        f"{seconds:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


HEAD = """\
| data | encoder | looks at | objects | IoU after 1 click | 2 | 3 | 5 | clicks to 0.9, mean | median | reached \
| embed, ms | answer, median ms | 95 % | s per object |
|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--encoder", nargs="+", default=["tiny", "photo"])
    parser.add_argument("--objects", type=int, default=120, help="objects per data set")
    parser.add_argument("--skip", type=int, default=0, help="objects of the draw to pass over")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args()
    tune_process()
    lines = [HEAD]
    print(HEAD)
    for pair in args.data:
        name, _, folder = pair.partition("=")
        dataset, _ = read_coco(Path(folder) / "images", Path(folder) / "instances.json", ReadRules())
        for encoder in args.encoder:
            for parts in (False, True):
                lines.append(run(name, dataset, encoder, parts, args.objects, args.skip))
                print(lines[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
