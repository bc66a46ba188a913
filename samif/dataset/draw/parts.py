"""The demo line's parts: twelve base classes and six that come later."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np

from samif.dataset.draw.part import Colour, Layer, Part
from samif.dataset.draw.shapes import Polygon, arc, box, circle, regular, star, stroke

STEEL: Colour = (0.62, 0.64, 0.67)
DARK_STEEL: Colour = (0.36, 0.38, 0.41)
ZINC: Colour = (0.78, 0.79, 0.80)
BRASS: Colour = (0.78, 0.62, 0.27)
COPPER: Colour = (0.72, 0.43, 0.28)
BLACK: Colour = (0.11, 0.11, 0.12)
GREEN: Colour = (0.10, 0.42, 0.24)
BLUE: Colour = (0.16, 0.30, 0.62)
ORANGE: Colour = (0.86, 0.42, 0.12)
RED: Colour = (0.72, 0.14, 0.14)
WHITE: Colour = (0.90, 0.90, 0.87)

BASE_PARTS = (
    "hex_nut", "washer", "gear", "bolt", "l_bracket", "bearing",
    "wrench", "circuit_board", "capacitor", "terminal_block", "flange", "coil_spring",
)  # fmt: skip
NOVEL_PARTS = ("wing_nut", "star_knob", "t_pipe", "fuse", "heat_sink", "hook")


def _add(*polygons: Polygon, colour: int = 0, lift: float = 0.0) -> list[Layer]:
    return [Layer("add", polygon, colour, lift) for polygon in polygons]


def _paint(*polygons: Polygon, colour: int = 1, lift: float = 0.0) -> list[Layer]:
    return [Layer("paint", polygon, colour, lift) for polygon in polygons]


def _cut(*polygons: Polygon) -> list[Layer]:
    return [Layer("cut", polygon) for polygon in polygons]


def _ring_of(count: int, ring: float, r: float, turn: float = 0.0) -> list[Polygon]:
    angles = turn + np.arange(count) * 2 * math.pi / count
    return [circle(r, ring * math.cos(a), ring * math.sin(a)) for a in angles]


def _part(*layers: list[Layer], palette: tuple[Colour, ...], gloss: float = 0.3, brushed: float = 0.0) -> Part:
    return Part(tuple(chain(*layers)), palette, gloss=gloss, grain=0.04, brushed=brushed)


def make_parts() -> dict[str, Part]:
    """All parts of the demo line by class name, base parts first."""
    threads = [box(0.04, 0.3, 0.05 + 0.12 * i, 0.0) for i in range(8)]
    clamps = [-0.7 + 0.47 * i for i in range(4)]
    zigzag = [(-0.9 + 0.2 * i, -0.32 if i % 2 else 0.32) for i in range(10)]
    collars = [box(0.22, 0.7, -0.86, -0.4), box(0.22, 0.7, 0.86, -0.4), box(0.7, 0.22, 0.0, 0.82)]
    fins = [box(0.13, 1.5, -0.82 + 0.235 * i, 0.0) for i in range(8)]
    wings = [box(0.75, 0.5, 0.62, -0.18, -0.35, 0.25), box(0.75, 0.5, -0.62, -0.18, 0.35, 0.25)]
    bend = [(0.3 + x, y - 0.4) for x, y in arc(0.4, math.pi / 2, -math.pi * 0.75)]
    return {
        "hex_nut": _part(
            _add(regular(6)),
            _paint(circle(0.72), colour=0, lift=0.4),
            _cut(circle(0.5)),
            palette=(ZINC,),
        ),
        "washer": _part(
            _add(circle(0.95)),
            _cut(circle(0.48)),
            palette=(STEEL,),
            gloss=0.5,
            brushed=0.05,
        ),
        "gear": _part(
            _add(star(14, 1.0, 0.8, 0.6)),
            _paint(circle(0.62), colour=1, lift=-0.6),
            _paint(circle(0.32), colour=0, lift=0.6),
            _cut(circle(0.16)),
            palette=(BRASS, (0.6, 0.47, 0.2)),
        ),
        "bolt": _part(
            _add(box(1.25, 0.3, 0.35, 0.0)),
            _paint(*threads, colour=1, lift=-0.6),
            _add(regular(6, 0.48) + np.array([-0.5, 0.0]), lift=0.8),
            palette=(DARK_STEEL, (0.24, 0.25, 0.28)),
        ),
        "l_bracket": _part(
            _add(box(1.7, 0.55, 0.0, 0.55), box(0.55, 1.7, -0.57, 0.0)),
            _cut(circle(0.13, 0.5, 0.55), circle(0.13, -0.57, -0.5)),
            palette=(ZINC,),
            gloss=0.1,
            brushed=0.04,
        ),
        "bearing": _part(
            _add(circle(0.98), lift=0.5),
            _paint(circle(0.76), colour=1, lift=-0.8),
            _paint(*_ring_of(9, 0.63, 0.11), colour=2, lift=0.7),
            _paint(circle(0.5), colour=0, lift=0.5),
            _cut(circle(0.32)),
            palette=(STEEL, BLACK, ZINC),
            gloss=0.6,
        ),
        "wrench": _part(
            _add(box(1.5, 0.26, 0.0, 0.0, 0.0, 0.08), circle(0.36, -0.78), circle(0.3, 0.8)),
            _paint(box(0.9, 0.1), colour=1, lift=-0.5),
            _cut(box(0.5, 0.26, -0.98, 0.0), circle(0.15, 0.8)),
            palette=(STEEL, DARK_STEEL),
            gloss=0.6,
        ),
        "circuit_board": _part(
            _add(box(1.8, 1.25)),
            _paint(box(0.5, 0.5, -0.3, 0.05), colour=1, lift=0.8),
            _paint(box(0.3, 0.22, 0.5, -0.3), colour=2, lift=0.6),
            _paint(box(0.22, 0.3, 0.55, 0.3), colour=1, lift=0.6),
            _paint(box(1.5, 0.06, 0.0, 0.54), colour=2),
            _cut(circle(0.08, -0.78, -0.5), circle(0.08, 0.78, -0.5)),
            palette=(GREEN, BLACK, ZINC),
            gloss=0.1,
        ),
        "capacitor": _part(
            _add(circle(0.8), lift=0.6),
            _paint(circle(0.62), colour=1, lift=0.2),
            _paint(box(1.1, 0.07), box(0.07, 1.1), colour=2, lift=-0.4),
            palette=(BLUE, ZINC, DARK_STEEL),
            gloss=0.5,
        ),
        "terminal_block": _part(
            _add(box(1.9, 0.9)),
            _paint(*[box(0.3, 0.5, x, -0.05) for x in clamps], colour=1, lift=-0.8),
            _paint(*[circle(0.12, x, -0.05) for x in clamps], colour=2, lift=0.5),
            palette=(ORANGE, (0.5, 0.22, 0.06), ZINC),
        ),
        "flange": _part(
            _add(box(1.6, 1.6, round_to=0.3)),
            _paint(circle(0.62), colour=0, lift=0.9),
            _cut(circle(0.36), *_ring_of(4, 0.86, 0.12, math.pi / 4)),
            palette=(COPPER,),
            gloss=0.4,
        ),
        "coil_spring": _part(
            _add(*stroke(zigzag, 0.15), lift=0.4),
            palette=(DARK_STEEL,),
            gloss=0.7,
        ),
        "wing_nut": _part(
            _add(*wings, circle(0.4), lift=0.3),
            _cut(circle(0.2)),
            palette=(BRASS,),
            gloss=0.4,
        ),
        "star_knob": _part(
            _add(*_ring_of(5, 0.62, 0.36), circle(0.66), lift=0.3),
            _paint(circle(0.3), colour=1, lift=0.8),
            palette=(BLACK, ZINC),
            gloss=0.3,
        ),
        "t_pipe": _part(
            _add(box(1.9, 0.55, 0.0, -0.4), box(0.55, 1.2, 0.0, 0.3), lift=0.2),
            _add(*collars, colour=1, lift=0.8),
            palette=(COPPER, BRASS),
            gloss=0.5,
        ),
        "fuse": _part(
            _add(box(1.9, 0.55, round_to=0.08)),
            _paint(box(1.0, 0.55), colour=1, lift=-0.2),
            _paint(box(1.0, 0.05), colour=2),
            palette=(ZINC, WHITE, RED),
            gloss=0.6,
        ),
        "heat_sink": _part(
            _add(box(1.9, 0.4), colour=1),
            _add(*fins, colour=0, lift=0.8),
            palette=(BLACK, DARK_STEEL),
            gloss=0.2,
        ),
        "hook": _part(
            _add(*stroke([(-0.9, 0.0), (-0.1, 0.0), *bend], 0.24), lift=0.3),
            _add(box(0.3, 0.5, -0.85, 0.0), lift=0.6),
            palette=(STEEL,),
            gloss=0.7,
        ),
    }
