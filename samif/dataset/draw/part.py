"""A part: layered polygons with colours, drawn as a shaded sprite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from samif.dataset.draw.shapes import Polygon, rotate
from samif.dataset.draw.surface import noise

Colour = tuple[float, float, float]
"""RGB in 0..1."""

OVERSAMPLE = 2


@dataclass(frozen=True)
class Layer:
    """One polygon. `add` makes material, `cut` makes a hole, `paint` colours material and lifts or sinks it."""

    kind: Literal["add", "cut", "paint"]
    polygon: Polygon
    colour: int = 0
    lift: float = 0.0


@dataclass(frozen=True)
class Part:
    """A kind of object: layers in a unit frame, a palette, and how its surface takes light."""

    layers: tuple[Layer, ...]
    palette: tuple[Colour, ...]
    gloss: float = 0.3
    grain: float = 0.05
    brushed: float = 0.0
    relief: float = 1.0


@dataclass(frozen=True)
class Sprite:
    """A drawn instance: `alpha` (S, S) in 0..1 and `rgb` (S, S, 3) in 0..1."""

    alpha: NDArray[np.float32]
    rgb: NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """How one instance differs from its part: turn (radians), radius (pixels), squeeze, shear and colour shift."""

    turn: float
    radius: float
    squeeze: float = 1.0
    shear: float = 0.0
    tint: Colour = (0.0, 0.0, 0.0)
    light: float = field(default=0.0)


def render(part: Part, pose: Pose, rng: np.random.Generator) -> Sprite:
    """Draw one instance of `part`.

    Shading is a bevel: the height map of the layers, smoothed, its slope lit from `pose.light` (radians).
    """
    half = math.ceil(pose.radius * 1.25) + 2
    size = 2 * half * OVERSAMPLE
    alpha = Image.new("L", (size, size), 0)
    height = Image.new("L", (size, size), 0)
    tone = Image.new("L", (size, size), 0)
    draw_alpha, draw_height, draw_tone = ImageDraw.Draw(alpha), ImageDraw.Draw(height), ImageDraw.Draw(tone)
    warp = np.array([[pose.squeeze, 0.0], [pose.shear, 1.0 / pose.squeeze]])
    for layer in part.layers:
        points = rotate(layer.polygon @ warp, pose.turn) * (pose.radius * OVERSAMPLE) + size / 2
        flat = [tuple(p) for p in points]
        if layer.kind == "cut":
            draw_alpha.polygon(flat, fill=0)
            draw_height.polygon(flat, fill=0)
        else:
            if layer.kind == "add":
                draw_alpha.polygon(flat, fill=255)
            draw_height.polygon(flat, fill=int(140 + 100 * layer.lift))
            draw_tone.polygon(flat, fill=layer.colour)
    mask = _shrink(alpha)
    levels = np.asarray(tone.resize((size // OVERSAMPLE,) * 2, Image.Resampling.NEAREST))
    palette = np.clip(np.array(part.palette, dtype=np.float32) + np.array(pose.tint, dtype=np.float32), 0.02, 0.98)
    rgb = palette[np.minimum(levels, len(part.palette) - 1)]

    bump = _shrink(height.filter(ImageFilter.GaussianBlur(OVERSAMPLE * max(0.8, 0.035 * pose.radius))))
    slope_y, slope_x = np.gradient(bump)
    slope = slope_x * math.cos(pose.light) + slope_y * math.sin(pose.light)
    facing = -slope * (2.5 + 0.03 * pose.radius) * part.relief
    shade = np.asarray(1.0 + 0.55 * np.clip(facing, -1.0, 1.0))
    if part.brushed > 0.0:
        streaks = rng.normal(0.0, part.brushed, (mask.shape[0], 1)).astype(np.float32)
        shade = shade + streaks
    shade = shade + part.grain * noise(rng, mask.shape[0], 6)
    shine = np.asarray(part.gloss * np.clip(facing, 0.0, 1.0) ** 2)
    lit = np.clip(rgb * shade[..., None] + shine[..., None], 0.0, 1.0).astype(np.float32)
    return Sprite(mask, lit)


def _shrink(image: Image.Image) -> NDArray[np.float32]:
    small = image.resize((image.width // OVERSAMPLE, image.height // OVERSAMPLE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0
