"""Shots are counted in what the hold-out leaves, before anything is computed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.stages import dataset as dataset_stage
from flows.stages import session as session_stage
from flows.workspace.edit import add_session
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from flows.workspace.shots import Available, available
from samif.config import CocoSource, Params, load_params
from samif.errors import ConfigError, DataError


def photos(
    folder: Path, images: int = 8, each: int = 2, classes: tuple[str, ...] = ("bolt", "nut", "clip")
) -> CocoSource:
    """Images with so many objects of every class in each."""
    (folder / "images").mkdir(parents=True)
    raw: dict[str, Any] = {"images": [], "annotations": []}
    raw["categories"] = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    for id_ in range(1, images + 1):
        pixels = np.random.default_rng(id_).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{id_}.png")
        raw["images"].append({"id": id_, "file_name": f"{id_}.png", "width": 40, "height": 40})
        for category in range(1, len(classes) + 1):
            for number in range(each):
                x, y = 12 * category - 11, 12 * number + 1
                outline = [[x, y, x + 9, y, x + 9, y + 9, x, y + 9]]
                label = {"id": len(raw["annotations"]) + 1, "image_id": id_, "category_id": category}
                raw["annotations"].append(label | {"segmentation": outline})
    (folder / "labels.json").write_text(json.dumps(raw))
    return CocoSource(images=str(folder / "images"), annotations=str(folder / "labels.json"))


SENTENCE = r"class 'clip' of session 's1' has 12 objects to learn from, fewer than {} shots: 4 of its 16 objects in .*"
HELD_OUT = SENTENCE + "are in the images that are held out for validation; ask for fewer shots, label more images, or"


@pytest.mark.parametrize("shots", [13, 16])
def test_init_counts_after_the_holdout(tmp_path: Path, shots: int) -> None:
    source = photos(tmp_path)
    with pytest.raises(ConfigError, match=HELD_OUT.format(shots)):
        init_workspace(tmp_path / "ws", source, None, [("s1", ["clip"])], shots=shots)
    assert not (tmp_path / "ws").exists()
    init_workspace(tmp_path / "ws", source, source, [("s1", ["clip"])], shots=shots)  # no hold-out


@pytest.mark.parametrize(("images", "each", "fits"), [(4, 1, 3), (5, 2, 8), (12, 1, 9), (8, 3, 18)])
def test_exactly_what_the_holdout_leaves(tmp_path: Path, images: int, each: int, fits: int) -> None:
    source = photos(tmp_path, images, each)
    with pytest.raises(ConfigError, match=f"has {fits} objects to learn from, fewer than {fits + 1} shots"):
        init_workspace(tmp_path / "ws", source, None, [("s1", ["clip"])], shots=fits + 1)
    params = init_workspace(tmp_path / "ws", source, None, [("s1", ["clip"])], shots=fits)
    layout = Layout(tmp_path / "ws")
    dataset_stage.run(layout, params, None)  # the stage splits as init did
    found = available(layout, params)
    assert (found.counts["clip"], found.held_out["clip"]) == (fits, images * each - fits)


def test_more_than_all_objects_is_not_the_holdouts_doing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 16 objects in .*labels\.json, fewer than 17 shots; label more"):
        init_workspace(tmp_path / "ws", photos(tmp_path), None, [("s1", ["clip"])], shots=17)


def test_one_image_is_too_few_at_init(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a split needs 2 or more"):
        init_workspace(tmp_path / "ws", photos(tmp_path, 1), None, [])
    assert not (tmp_path / "ws").exists()


def edited(root: Path, old: str, new: str) -> Params:
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new))
    return load_params(root / "params.yaml")


def test_the_first_stage_counts_what_was_edited_by_hand(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "ws")
    init_workspace(layout.root, photos(tmp_path), None, [("s1", ["clip"])], shots=12)
    params = edited(layout.root, "shots: 12", "shots: 16")
    with pytest.raises(ConfigError, match=HELD_OUT.format(16)):
        dataset_stage.run(layout, params, None)
    assert not layout.index("train").exists()
    params = edited(layout.root, "[clip]", "[clap]")
    with pytest.raises(ConfigError, match=r"class 'clap' of session 's1' is not in .*labels\.json; it has bolt, nut"):
        dataset_stage.run(layout, params, None)


@pytest.mark.parametrize("indexed", [False, True])
def test_adding_a_session_counts_after_the_holdout(tmp_path: Path, indexed: bool) -> None:
    layout = Layout(tmp_path / "ws")
    init_workspace(layout.root, photos(tmp_path), None, [])
    params = edited(layout.root, "    - clip\n", "")
    if indexed:
        dataset_stage.run(layout, params, None)
    before = layout.params.read_bytes()
    with pytest.raises(ConfigError, match=HELD_OUT.format(16)):
        add_session(layout.root, "s1", "clip", shots=16)
    assert layout.params.read_bytes() == before
    add_session(layout.root, "s1", "clip", shots=12)


def test_a_session_that_was_edited_later_names_the_holdout(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "ws")
    params = init_workspace(layout.root, photos(tmp_path), None, [("s1", ["clip"])], shots=12)
    dataset_stage.run(layout, params, None)
    params = edited(layout.root, "shots: 12", "shots: 14")
    with pytest.raises(ConfigError, match=HELD_OUT.format(14)):
        session_stage.run(layout, params, "s1")


def test_own_images_of_a_session_have_no_holdout(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    init_workspace(root, photos(tmp_path / "a"), None, [])
    own = photos(tmp_path / "b", images=3, each=1, classes=("pin",))
    with pytest.raises(ConfigError, match="class 'pin' of session 's1' has 3 objects in .*, fewer than 4 shots; label"):
        add_session(root, "s1", ["pin"], shots=4, source=own)
    add_session(root, "s1", ["pin"], shots=3, source=own)


def test_a_class_whose_objects_are_all_held_out() -> None:
    found = Available(Counter({"a": 3}), Counter({"b": 2}), Path("x.json"))
    with pytest.raises(
        ConfigError, match=r"has 0 objects to learn from, fewer than 1 shots: 2 of its 2 objects in x\.json"
    ):
        found.check("s", ["b"], 1)
    with pytest.raises(ConfigError, match="class 'c' of session 's' is not in x.json; it has a"):
        found.check("s", ["c"], 1)
