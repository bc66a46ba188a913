"""Drawing instances: what is painted, what is left alone, and that name plates stay inside and apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samif.errors import SamifError
from samif.inference.overlay import _overlap, _Plates, class_colour, draw_instances
from samif.masks.rle import encode


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def grey(height: int, width: int, tone: int = 128) -> np.ndarray:
    return np.full((height, width, 3), tone, np.uint8)


def distance(pixel: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float(np.abs(pixel.astype(float) - colour).max())


def test_the_image_given_is_not_touched_and_no_instance_means_a_plain_copy() -> None:
    image = grey(64, 80)
    out = draw_instances(image, [], [])
    assert out is not image
    assert out.shape == (64, 80, 3)
    assert out.dtype == np.uint8
    assert (out == image).all()
    draw_instances(image, [disc(64, 80, 40, 32, 20)], ["nut"])
    assert (image == 128).all()


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_inside_is_tinted_the_edge_is_the_class_colour_and_far_away_nothing_changes(tone: int) -> None:
    mask = disc(256, 256, 128, 160, 60)
    out = draw_instances(grey(256, 256, tone), [mask], ["nut"])
    colour = class_colour("nut")
    assert distance(out[160, 128], colour) > 30  # translucent, not opaque
    assert not (out[160, 128] == tone).all()
    edge = min(distance(out[160, x], colour) for x in range(185, 192))
    assert edge < 40
    assert (out[220:, :30] == tone).all()
    assert (out[160, 200:] == tone).all()


def test_small_images_get_no_tinted_box_around_an_instance() -> None:
    out = draw_instances(grey(64, 64), [disc(64, 64, 32, 44, 8)], ["nut"], emphasis=[False])
    changed = np.argwhere((out != 128).any(axis=2))
    assert np.hypot(changed[:, 0] - 44, changed[:, 1] - 32).max() < 8 + 3


def test_rle_and_array_masks_draw_alike() -> None:
    mask = disc(90, 120, 60, 45, 25)
    image = grey(90, 120)
    coded = draw_instances(image, encode(mask[None]), ["nut"])
    assert (draw_instances(image, [mask], ["nut"]) == coded).all()


def test_without_emphasis_there_is_an_outline_but_neither_fill_nor_plate() -> None:
    mask = disc(200, 200, 100, 100, 50)
    out = draw_instances(grey(200, 200), [mask], ["nut"], [0.5], emphasis=[False])
    assert (out[100, 100] == 128).all()
    assert not (out[100, 48:53] == 128).all()
    assert (out[:40] == 128).all()


def test_an_object_cut_by_the_edge_is_outlined_along_it() -> None:
    mask = np.zeros((200, 200), bool)
    mask[80:, :90] = True
    out = draw_instances(grey(200, 200), [mask], ["nut"], emphasis=[False])
    colour = class_colour("nut")
    assert distance(out[199, 40], colour) < distance(out[150, 40], colour)
    assert distance(out[150, 0], colour) < distance(out[150, 40], colour)


def test_a_small_part_on_a_large_one_stays_visible_whatever_the_order() -> None:
    large, small = disc(200, 200, 100, 120, 70), disc(200, 200, 100, 120, 20)
    one = draw_instances(grey(200, 200), [large, small], ["plate", "nut"])
    other = draw_instances(grey(200, 200), [small, large], ["nut", "plate"])
    assert (one == other).all()


def test_colours_hang_on_the_name_alone_and_differ() -> None:
    assert class_colour("hex nut") == class_colour("hex nut")
    names = [f"part {number}" for number in range(80)]
    colours = {class_colour(name) for name in names}
    assert len(colours) > 75
    assert all(max(colour) > 200 and max(colour) - min(colour) > 90 for colour in colours)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(12, 160),
    width=st.integers(12, 160),
    labels=st.lists(st.text(max_size=40), max_size=4),
    data=st.data(),
)
def test_anything_can_be_drawn(height: int, width: int, labels: list[str], data: st.DataObject) -> None:
    place = st.tuples(st.floats(-20, 180), st.floats(-20, 180), st.floats(0, 90))
    masks = [disc(height, width, *data.draw(place)) for _ in labels]
    out = draw_instances(grey(height, width), masks, labels, [0.5] * len(labels))
    assert out.shape == (height, width, 3)
    assert out.dtype == np.uint8


@pytest.mark.parametrize("side", [64, 256, 1024, 4000])
@pytest.mark.parametrize("text", ["nut 0.93", "a name far too long for a small image, and then some more of it 0.93"])
def test_plates_stay_inside_the_image(side: int, text: str) -> None:
    plates = _Plates(Image.new("RGB", (side, side)), 2.0)
    for x, y in ((0, 0), (side - 10, 0), (0, side - 10), (side - 10, side - 10), (side // 2, side // 2)):
        plates.put(text, (x, y, x + 10, y + 10), (200, 40, 40))
    for left, top, right, bottom in plates.taken:
        assert left >= 0
        assert top >= 0
        assert right <= side
        assert bottom <= side


def test_plates_of_neighbours_do_not_cover_each_other() -> None:
    plates = _Plates(Image.new("RGB", (480, 480)), 2.0)
    for x in (150, 170, 190, 210):
        plates.put("hex nut 0.93", (x, 200, x + 60, 260), (200, 40, 40))
    assert len(plates.taken) == 4
    assert all(_overlap(one, other) == 0 for one, other in combinations(plates.taken, 2))


def test_plates_grow_with_the_image_but_less_than_it() -> None:
    heights = []
    for side in (256, 4000):
        plates = _Plates(Image.new("RGB", (side, side)), 2.0)
        plates.put("nut", (50, 50, 100, 100), (200, 40, 40))
        heights.append(plates.taken[0][3] - plates.taken[0][1])
    assert 2 < heights[1] / heights[0] < 4000 / 256


MASK = np.ones((20, 30), bool)


@pytest.mark.parametrize(
    ("image", "masks", "labels", "scores", "says"),
    [
        (np.zeros((20, 30), np.uint8), [], [], None, "image: expected"),
        (np.zeros((20, 30, 3), np.float32), [], [], None, "image: expected"),
        (grey(20, 30), [MASK], [], None, "labels: expected 1"),
        (grey(20, 30), [MASK], ["a"], [0.1, 0.2], "scores: expected 1"),
        (grey(20, 30), [MASK.astype(np.uint8)], ["a"], None, "mask: expected bool"),
        (grey(20, 30), [MASK.T], ["a"], None, r"mask: expected \(20, 30\)"),
    ],
)
def test_bad_input_is_named(
    image: np.ndarray, masks: list[np.ndarray], labels: list[str], scores: list[float] | None, says: str
) -> None:
    with pytest.raises(SamifError, match=says):
        draw_instances(image, masks, labels, scores)
