"""Verdicts straddle their thresholds, and say what to photograph next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from samif.advice.classes import ClassAdvice, Naming, advise_class, variety_of
from samif.advice.traits import Traits


def traits(count: int = 12, seed: int = 0, **fixed: Any) -> list[Traits]:
    """Varied objects, but for what is `fixed`."""
    rng = np.random.default_rng(seed)
    return [
        Traits(
            **{
                "image": i,
                "annotation": i,
                "category": "bolt",
                "size": float(rng.uniform(0.05, 0.15)),
                "angle": float(180.0 * i / count),
                "brightness": float(rng.uniform(60, 180)),
                "surround": tuple(rng.uniform(40, 200, 3)),
                "cut": False,
                "touching": i % 2 == 0,
                **fixed,
            }
        )
        for i in range(count)
    ]


def advice(of: Sequence[Traits], distinct: int | None = None, naming: Naming | None = None) -> ClassAdvice:
    return advise_class("bolt", len(of), len(of), len(of) if distinct is None else distinct, variety_of(of), naming)


@pytest.mark.parametrize(
    ("images", "verdict"), [(1, "not yet"), (4, "not yet"), (5, "usable"), (9, "usable"), (10, "ready")]
)
def test_images(images: int, verdict: str) -> None:
    found = advice(traits(images))
    assert found.verdict == verdict
    assert (found.next == ()) is (verdict == "ready")


def test_near_duplicates_count_once() -> None:
    found = advice(traits(10), distinct=1)
    assert found.verdict == "not yet"
    assert found.reasons[0] == "its 10 images show 1 different view: the rest are near-duplicates"
    assert "4 more different images" in found.next[0]


@pytest.mark.parametrize(("same", "one_pose"), [(10, True), (9, False)])
def test_one_pose(same: int, one_pose: bool) -> None:
    angles = [float(175 + 10 * (i % 2)) % 180 for i in range(same)] + [60.0, 120.0, 90.0][: 12 - same]
    found = advice([replace(t, angle=a) for t, a in zip(traits(12), angles, strict=True)])
    assert found.verdict == ("usable" if one_pose else "ready")
    assert ("10 of 12 objects show one pose: turn the part" in found.next) is one_pose


def test_round_parts_have_no_pose() -> None:
    assert advice(traits(angle=None)).verdict == "ready"


@pytest.mark.parametrize(
    ("fixed", "told"),
    [
        ({"brightness": 100.0}, "change the light"),
        ({"surround": (90.0, 90.0, 90.0)}, "other backgrounds"),
    ],
)
def test_one_light_and_one_background(fixed: dict[str, Any], told: str) -> None:
    found = advice(traits(**fixed))
    assert found.verdict == "usable" and told in " ".join(found.next)
    assert told not in " ".join(advice(traits()).next)


@pytest.mark.parametrize(
    ("fixed", "told"),
    [
        ({"cut": True}, "the border cuts 100 %"),
        ({"touching": True}, "others touch 100 %"),
        ({"size": 0.1}, "one size"),
    ],
)
def test_what_is_only_a_hint(fixed: dict[str, Any], told: str) -> None:
    found = advice(traits(**fixed))
    assert found.verdict == "ready" and told in " ".join(found.next)


@pytest.mark.parametrize(("right", "verdict"), [(0.69, "usable"), (0.7, "ready"), (None, "ready")])
def test_names(right: float | None, verdict: str) -> None:
    found = advice(traits(), naming=Naming(right, (), 2, 1, None))
    assert found.verdict == verdict
    assert "look at 3 labels that may be wrong" in found.next


def test_look_alikes_are_named() -> None:
    found = advice(traits(), naming=Naming(0.9, ("nut", "pin"), 0, 0, None))
    assert found.verdict == "usable" and found.reasons == ("looks like nut, pin",)


@pytest.mark.parametrize("seed", range(20))
def test_varied_images_are_ready(seed: int) -> None:
    """Directions by chance, not spread by hand."""
    rng = np.random.default_rng(seed)
    found = advice([replace(t, angle=float(rng.uniform(0, 180))) for t in traits(12, seed)])
    assert (found.verdict, found.next) == ("ready", ())


def test_few_objects_are_not_called_uniform() -> None:
    found = advice(traits(4, brightness=100.0, surround=(90.0, 90.0, 90.0), angle=10.0))
    assert found.next == ("photograph it in 1 more image",)
