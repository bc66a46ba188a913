"""Draw the images of the field guide with the demo line's parts: `python -m benchmarks.field_guide_images`.

A sheet has a row of poor examples, marked with a cross, and a row of good ones, marked with a tick. There is no text in
them, so that all languages share them.

Shape legend: S side of a tile in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from samif.dataset.draw.part import Pose, render
from samif.dataset.draw.parts import make_parts
from samif.dataset.draw.surface import background

OUT = Path("docs/field-guide/images")
S = 168
GAP = 8
GOOD, POOR, LINE = (20, 120, 70), (190, 40, 40), (0, 225, 255)
PARTS = make_parts()
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Placed:
    """A part: its centre as shares of the tile, its radius in pixels and its direction in degrees."""

    name: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 46.0
    turn: float = 20.0


@dataclass(frozen=True)
class Shown:
    """A tile: parts from the lowest to the topmost, the background's seed, the light's direction in degrees, its
    strength and its colour; `outline` draws an outline from the masks of the parts."""

    parts: tuple[Placed, ...]
    floor: int = 20
    lamp: float = 40.0
    strength: float = 1.0
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    outline: Callable[[list[Mask]], list[Mask]] = lambda masks: []


def draw(shown: Shown) -> Image.Image:
    """A tile (S, S)."""
    canvas = background(np.random.default_rng(shown.floor), S, markings=False)
    owner = np.full((S, S), -1)
    for number, placed in enumerate(shown.parts):
        rng = np.random.default_rng([7, number])
        pose = Pose(turn=math.radians(placed.turn), radius=placed.radius, light=math.radians(shown.lamp))
        sprite = render(PARTS[placed.name], pose, rng)
        alpha, rgb = _on_tile(sprite.alpha[..., None], placed), _on_tile(sprite.rgb, placed)
        away = 0.12 * placed.radius
        cast = ndimage.shift(
            alpha[..., 0], (away * math.sin(math.radians(shown.lamp)), away * math.cos(math.radians(shown.lamp)))
        )
        canvas = canvas * (1.0 - 0.45 * ndimage.gaussian_filter(cast, 2.5)[..., None])
        canvas = canvas * (1.0 - alpha) + rgb * alpha
        owner[alpha[..., 0] > 0.5] = number
    lit = np.clip(canvas * shown.strength * np.array(shown.colour), 0.0, 1.0)
    image = (255 * lit).astype(np.uint8)
    masks = [owner == number for number in range(len(shown.parts))]
    for outline in shown.outline(masks):
        image[outline] = LINE
    return Image.fromarray(image)


def _on_tile(sprite: NDArray[np.float32], placed: Placed) -> NDArray[np.float32]:
    """A sprite (h, w, C) on an empty tile (S, S, C)."""
    tile = np.zeros((S, S, sprite.shape[2]), dtype=np.float32)
    top, left = round(placed.y * S) - sprite.shape[0] // 2, round(placed.x * S) - sprite.shape[1] // 2
    rows = slice(max(0, top), min(S, top + sprite.shape[0]))
    columns = slice(max(0, left), min(S, left + sprite.shape[1]))
    tile[rows, columns] = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return tile


def border(mask: Mask) -> Mask:
    """The outline of a mask, three pixels wide."""
    return np.asarray(ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_erosion(mask, iterations=1))


def _tight(masks: list[Mask]) -> list[Mask]:
    return [border(mask) for mask in masks]


def _first(masks: list[Mask]) -> list[Mask]:
    return _tight(masks[:1])


def _box(masks: list[Mask]) -> list[Mask]:
    y, x = np.nonzero(masks[0])
    box = np.zeros_like(masks[0])
    box[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return [border(box)]


def _loose(masks: list[Mask]) -> list[Mask]:
    return [border(ndimage.binary_dilation(masks[0], iterations=13))]


def _half(masks: list[Mask]) -> list[Mask]:
    half = masks[0].copy()
    half[:, : int(np.median(np.nonzero(half)[1]))] = False
    return [border(half)]


def _joined(masks: list[Mask]) -> list[Mask]:
    return [border(ndimage.binary_dilation(masks[0] | masks[1], iterations=14))]


WRENCH = Placed("wrench", radius=58.0)
PAIR = (Placed("wing_nut", 0.36, 0.4, 38.0, 15.0), Placed("wing_nut", 0.66, 0.64, 38.0, 130.0))
COVER = Placed("flange", 0.74, 0.66, 40.0)


def _turned(*turns: float) -> list[Shown]:
    return [Shown((replace(WRENCH, turn=turn),)) for turn in turns]


SHEETS: dict[str, tuple[Sequence[Shown], Sequence[Shown]]] = {
    "angle": (_turned(20, 21, 19, 20), _turned(20, 75, 140, 250)),
    "light": (
        [Shown((WRENCH,))] * 4,
        [
            Shown((WRENCH,), strength=0.5),
            Shown((WRENCH,), strength=1.35, lamp=200),
            Shown((WRENCH,), colour=(1.1, 0.95, 0.75), lamp=120),
            Shown((WRENCH,), colour=(0.85, 0.95, 1.1), lamp=300),
        ],
    ),
    "distance": (
        [Shown((replace(WRENCH, radius=14.0),))] * 4,
        [
            Shown((replace(WRENCH, radius=radius, turn=turn),))
            for radius, turn in ((36, 20), (48, 80), (60, 140), (72, 40))
        ],
    ),
    "occlusion": (
        [
            Shown((WRENCH, replace(COVER, x=0.4, y=0.42, radius=52), replace(COVER, x=0.74, y=0.66, radius=44))),
            Shown((replace(WRENCH, x=0.98, y=0.95),)),
            Shown((replace(WRENCH, turn=90), replace(COVER, x=0.5, y=0.55, radius=66))),
            Shown((replace(WRENCH, x=0.03, turn=5),)),
        ],
        [
            Shown((WRENCH,)),
            Shown((replace(WRENCH, turn=75), replace(COVER, x=0.72, y=0.78, radius=32))),
            Shown((replace(WRENCH, turn=140), replace(COVER, x=0.3, y=0.82, radius=30, name="hex_nut"))),
            Shown((replace(WRENCH, turn=250), Placed("gear", 0.8, 0.28, 28.0))),
        ],
    ),
    "background": (
        [Shown((replace(WRENCH, turn=turn),)) for turn in (20, 75, 140, 250)],
        [Shown((replace(WRENCH, turn=turn),), floor=floor) for turn, floor in ((20, 20), (75, 4), (140, 22), (250, 0))],
    ),
    "copies": (
        [Shown(PAIR, outline=_first), Shown((*PAIR, Placed("wing_nut", 0.3, 0.8, 30.0, 60.0)), outline=_first)],
        [Shown(PAIR, outline=_tight), Shown((*PAIR, Placed("wing_nut", 0.3, 0.8, 30.0, 60.0)), outline=_tight)],
    ),
    "outline": (
        [Shown((WRENCH,), outline=how) for how in (_box, _loose, _half)] + [Shown(PAIR, outline=_joined)],
        [
            Shown((WRENCH,), outline=_tight),
            Shown((replace(WRENCH, turn=75), replace(COVER, x=0.72, y=0.78, radius=32)), outline=_first),
            Shown((Placed("wing_nut", radius=52.0),), outline=_tight),
            Shown(PAIR, outline=_tight),
        ],
    ),
}
"""Name of a sheet -> its poor and its good examples."""


def sheet(poor: Sequence[Shown], good: Sequence[Shown]) -> Image.Image:
    """Both rows, each tile with its mark."""
    columns = max(len(poor), len(good))
    whole = Image.new("RGB", (columns * (S + GAP) - GAP, 2 * S + GAP), "white")
    for row, (tiles, is_good) in enumerate(((poor, False), (good, True))):
        for column, shown in enumerate(tiles):
            whole.paste(_marked(draw(shown), is_good), (column * (S + GAP), row * (S + GAP)))
    return whole


def _marked(tile: Image.Image, is_good: bool) -> Image.Image:
    """With a border, and a tick or a cross in the corner."""
    large = Image.new("RGBA", (4 * S, 4 * S))
    pen = ImageDraw.Draw(large)
    colour = GOOD if is_good else POOR
    pen.rectangle((0, 0, 4 * S - 1, 4 * S - 1), outline=colour, width=16)
    x, y, r = 4 * S - 84, 84, 68
    pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    if is_good:
        pen.line([(x - 34, y + 2), (x - 8, y + 30), (x + 36, y - 28)], fill="white", width=18, joint="curve")
    else:
        pen.line([(x - 28, y - 28), (x + 28, y + 28)], fill="white", width=18)
        pen.line([(x - 28, y + 28), (x + 28, y - 28)], fill="white", width=18)
    mark = large.resize((S, S), Image.Resampling.LANCZOS)
    return Image.alpha_composite(tile.convert("RGBA"), mark).convert("RGB")


def main(out: Path = OUT) -> None:
    """Write all sheets."""
    out.mkdir(parents=True, exist_ok=True)
    for name, (poor, good) in SHEETS.items():
        sheet(poor, good).save(out / f"{name}.webp", quality=82, method=6)
    print(out)


if __name__ == "__main__":
    typer.run(main)
