"""Names near a border between classes are uncertain."""

from __future__ import annotations

import numpy as np
import pytest

from samif.suggest.features import name_changes
from tests.support.handmade import classifier, proposals, rectangle

WIDTH = 32
AXES = np.eye(WIDTH, dtype=np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_names_between_two_classes_change_more_often(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bolt, nut = rng.normal(size=(2, WIDTH)).astype(np.float32)
    head = classifier({"bolt": bolt.tolist(), "nut": nut.tolist()}, [50.0] * WIDTH)
    masks = [rectangle((40, 40), 2, 2, 9, 9), rectangle((40, 40), 20, 20, 9, 9)]
    sure = name_changes(proposals(masks, np.stack([3 * bolt, 3 * nut])), head)
    between = name_changes(proposals(masks, np.stack([bolt + nut] * 2) / 2), head)
    assert 0.0 <= sure < between <= 1.0


def test_without_a_good_object_nothing_is_uncertain() -> None:
    head = classifier({"bolt": AXES[0].tolist()}, AXES[1].tolist())
    mask = rectangle((40, 40), 2, 2, 9, 9)
    assert name_changes(proposals([]), head) == 0.0
    assert name_changes(proposals([mask], (AXES[:1] + AXES[1:2]) / 2, [0.2]), head) == 0.0
