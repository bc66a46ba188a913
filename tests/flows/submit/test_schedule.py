"""Three nights of the CronJob's own command with the real driver: new images and labels on the second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.submit import package
from flows.submit.wheel import build_wheel
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from samif.config import CocoSource, DrawnParams
from samif.dataset.draw.line import draw_line
from samif.io.hashing import file_sha256
from tests.flows.submit.test_submit import forget_token, samif, schedule
from tests.support.ray_head import RayHead, ray_head

pytestmark = pytest.mark.slow

FIRST = 26
"""So many of the drawn images are there on the first night."""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head() as head:
        yield head


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Drawn images with their labels, more than there are on the first night."""
    draw_line(tmp_path / "all", DrawnParams(seed=6, base_images=22, mixed_images=14, val_images=1, size=192))
    return tmp_path / "all" / "train"


def put(drawn: Path, data: Path, count: int) -> CocoSource:
    """The first `count` images and their labels, in the same folder and file each time."""
    coco = json.loads((drawn / "annotations.json").read_text())
    # scenes with new parts stand at the end, and each night needs some of them
    images = [*coco["images"][: count - 14], *coco["images"][-14:]]
    ids = {image["id"] for image in images}
    labels = [label for label in coco["annotations"] if label["image_id"] in ids]
    (data / "images").mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copyfile(drawn / "images" / image["file_name"], data / "images" / image["file_name"])
    (data / "annotations.json").write_text(json.dumps(coco | {"images": images, "annotations": labels}))
    return CocoSource(images=str(data / "images"), annotations=str(data / "annotations.json"))


def make(root: Path, source: CocoSource) -> None:
    init_workspace(root, source, None, [("w1", ["star_knob"])], shots=2, encoder="tiny")
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    params["pretrain_decoder"].update(steps=2, images_per_step=2)
    params["propose"].update(points=32)
    yaml.dump(params, root / "params.yaml")


def test_new_data_are_trained_on_in_the_second_night_and_the_third_does_nothing(
    head: RayHead, tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheel").mkdir()
    wheel = build_wheel(tmp_path / "wheel")  # of all nights: an edit of the sources meanwhile would be other software
    monkeypatch.setattr(package, "build_wheel", lambda _: wheel)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    forget_token()
    root, data = tmp_path / "demo", tmp_path / "data"
    make(root, put(drawn, data, FIRST))
    layout = Layout(root)
    nights: list[str] = []
    locks: list[str] = []
    for images in (FIRST, 36, 36):
        put(drawn, data, images)
        code = samif(*schedule(head, root))
        out, err = capsys.readouterr()
        assert code == 0, out + err
        nights.append(out)
        locks.append(file_sha256(layout.lock))

    def job(night: int) -> dict[str, Any]:
        (line,) = [line for line in nights[night].splitlines() if line.startswith("log, record and reports: ")]
        record: dict[str, Any] = json.loads((Path(line.partition(": ")[2]) / "record.json").read_text())
        return record

    assert "stage pretrain_decoder" in nights[0] and "stage pretrain_decoder" in nights[1]
    assert all("dvc.lock is now that of the run; commit it" in night for night in nights[:2])
    assert "nothing changed since job samif-demo-" in nights[2] and "stage" not in nights[2]
    assert job(0)["data_sha256"] != job(1)["data_sha256"] == job(2)["data_sha256"]
    assert [record["up_to_date"] for record in map(job, range(3))] == [False, False, False]
    assert [job(night)["versions"]["classifiers"] for night in range(3)] == [
        {"base": 1, "w1": 2}, {"base": 3, "w1": 4}, {"base": 3, "w1": 4},
    ]  # fmt: skip
    assert locks[0] != locks[1] == locks[2] == job(1)["dvc_lock"]
    assert samif("registry", "list", "-w", root, "--json") == 0
    assert [version["version"] for version in json.loads(capsys.readouterr().out)] == [1, 2, 3, 4]
