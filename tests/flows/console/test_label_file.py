"""A COCO file that several people write: nothing is lost, nothing is half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.console.label_file import Conflict, ImageFacts, LabelFile, LabelledObject
from samif.config import ReadRules
from samif.dataset.coco import read_coco
from samif.errors import DataError, IntegrityError
from samif.masks.rle import encode

ONE = ImageFacts("one.png", 12, 10, "0" * 64)
TWO = ImageFacts("sub/two.png", 12, 10, "1" * 64)


def thing(name: str, left: int = 1, id_: int | None = None) -> LabelledObject:
    """An object with a hole."""
    mask = np.zeros((1, 10, 12), dtype=bool)
    mask[0, 2:8, left : left + 5] = True
    mask[0, 4, left + 2] = False
    return LabelledObject(name, encode(mask)[0], id_)


@pytest.fixture
def labels(tmp_path: Path) -> LabelFile:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for facts in (ONE, TWO):
        Image.new("RGB", (facts.width, facts.height)).save(tmp_path / "images" / facts.name)
    return LabelFile(tmp_path / "labels" / "images.json", tmp_path / "images")


def test_labels_are_coco_with_exact_masks(labels: LabelFile) -> None:
    assert labels.image("one.png").revision == 0 and labels.counts() == {}
    saved = labels.save(ONE, 0, [thing("bolt"), thing("gear", 6)], "ann")
    assert (saved.revision, saved.by, [o.id for o in saved.objects]) == (1, "ann", [1, 2])
    labels.save(TWO, 0, [], "ann")
    dataset, _ = read_coco(labels.folder, labels.path, ReadRules())
    assert {i.file_name: [a.category for a in i.annotations] for i in dataset.images} == {
        "one.png": ["bolt", "gear"],
        "sub/two.png": [],
    }
    assert dataset.images[0].annotations[0].rle == thing("bolt").rle
    assert labels.counts() == {"one.png": (1, 2), "sub/two.png": (1, 0)}
    assert labels.classes() == {"bolt": 1, "gear": 1}


def test_ids_stay_with_their_objects(labels: LabelFile) -> None:
    first, second = labels.save(ONE, 0, [thing("bolt"), thing("gear", 6)], "ann").objects
    labels.save(TWO, 0, [thing("bolt")], "ann")
    kept = labels.save(ONE, 1, [thing("nut", 6, second.id), thing("bolt", 0)], "ann")
    assert [(o.name, o.id) for o in kept.objects] == [("nut", 2), ("bolt", 4)]
    taken = labels.save(TWO, 1, [thing("bolt", 1, first.id), thing("bolt", 2, second.id)], "ann")
    assert len({o.id for o in taken.objects} | {o.id for o in kept.objects}) == 4


def test_an_older_revision_does_not_overwrite(labels: LabelFile) -> None:
    labels.save(ONE, 0, [thing("bolt")], "ann")
    for revision in (0, 2):
        with pytest.raises(Conflict) as conflict:
            labels.save(ONE, revision, [thing("gear")], "bob")
        assert (conflict.value.saved.by, conflict.value.saved.objects[0].name) == ("ann", "bolt")
    assert labels.image("one.png").objects[0].name == "bolt"


def test_of_many_at_once_one_wins_each_revision_and_nothing_is_lost(labels: LabelFile) -> None:
    """Eight people add ten objects each to one image, and read it again where they were too late."""

    def add(person: int) -> None:
        own = LabelFile(labels.path, labels.folder)  # as in another process
        for number in range(10):
            while True:
                seen = own.image("one.png")
                try:
                    own.save(ONE, seen.revision, [*seen.objects, thing(f"p{person} {number}")], f"p{person}")
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    saved = labels.image("one.png")
    assert saved.revision == 80
    assert {o.name for o in saved.objects} == {f"p{p} {n}" for p in range(8) for n in range(10)}


def test_a_writer_killed_at_any_time_leaves_whole_labels(labels: LabelFile) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flows.console.label_file import LabelFile\n"
        "from tests.flows.console.test_label_file import ONE, thing\n"
        "labels = LabelFile(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    seen = labels.image('one.png')\n"
        "    labels.save(ONE, seen.revision, [*seen.objects, thing('bolt')], 'x')\n"
    )
    revisions = []
    for wait in (0.02, 0.09, 0.17):
        command = [sys.executable, "-c", code, str(labels.path), str(labels.folder)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()})
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            writer.wait(wait)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        writer.wait()
        saved = labels.image("one.png")
        assert saved.revision == len(saved.objects)
        revisions.append(saved.revision)
        labels.save(ONE, saved.revision, [*saved.objects, thing("gear")], "ann")  # the lock is free again
    assert revisions == sorted(revisions) and revisions[-1] > 3


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"size": [10, 13], "counts": thing("x").rle["counts"]}, "of another"),
        ({"size": [10, 12], "counts": "zzz~~~"}, "object 1 of one.png"),
        ({"size": [10, 12], "counts": encode(np.zeros((1, 10, 12), dtype=bool))[0]["counts"]}, "empty mask"),
    ],
)
def test_wrong_masks_change_nothing(rle: dict[str, object], words: str, labels: LabelFile) -> None:
    labels.save(ONE, 0, [thing("bolt")], "ann")
    before = labels.path.read_bytes()
    with pytest.raises(DataError, match=words if words != "of another" else "13"):
        labels.save(ONE, 1, [LabelledObject("bolt", rle)], "ann")
    assert labels.path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"images": [], "annotations": [{"image_id": 1}], "categories": []}'])
def test_a_damaged_file_is_refused_and_kept(damage: bytes, labels: LabelFile) -> None:
    labels.path.parent.mkdir(parents=True)
    labels.path.write_bytes(damage)
    with pytest.raises(IntegrityError, match="is damaged"):
        labels.save(ONE, 0, [thing("bolt")], "ann")
    assert labels.path.read_bytes() == damage


def test_other_keys_of_the_file_stay(labels: LabelFile) -> None:
    labels.save(ONE, 0, [thing("bolt")], "ann")
    content = json.loads(labels.path.read_bytes())
    content["info"]["contributor"] = "line 7"
    content["licenses"] = [{"id": 1}]
    labels.path.write_text(json.dumps(content))
    labels.save(ONE, 1, [], "ann")
    content = json.loads(labels.path.read_bytes())
    assert content["info"]["contributor"] == "line 7" and content["licenses"] == [{"id": 1}]
