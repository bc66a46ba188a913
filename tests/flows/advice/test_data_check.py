"""`samif data check` advises: from files alone, and with what a run left; in a table, as JSON and on a page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import data  # noqa: F401  (registers the command)
from flows.cli.app import app
from samif.config import DrawnParams
from samif.dataset.draw.line import draw_line
from samif.dataset.draw.parts import BASE_PARTS
from tests.support.small_line import Line, write

LEAKED = "scene_0002.jpg"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """Twelve drawn training images; one is a validation image too, saved anew and a little brighter."""
    root = tmp_path_factory.mktemp("advice")
    draw_line(root, DrawnParams(base_images=11, mixed_images=1, val_images=2, size=160))
    train, val = (json.loads((root / split / "annotations.json").read_text()) for split in ("train", "val"))
    (image,) = (i for i in train["images"] if i["file_name"] == LEAKED)
    pixels = np.asarray(Image.open(root / "train" / "images" / LEAKED)).astype(float) * 1.05
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "val" / "images" / "again.jpg", quality=70)
    val["images"].append({**image, "id": 900, "file_name": "again.jpg"})
    val["annotations"] += [
        {**a, "id": 9000 + a["id"], "image_id": 900} for a in train["annotations"] if a["image_id"] == image["id"]
    ]
    (root / "val" / "annotations.json").write_text(json.dumps(val))
    sources = {
        split: {"images": str(root / split / "images"), "annotations": str(root / split / "annotations.json")}
        for split in ("train", "val")
    }
    used = {c["id"]: c["name"] for c in train["categories"]}
    base = sorted({used[a["category_id"]] for a in train["annotations"]} & set(BASE_PARTS))
    return write(
        root / "ws",
        {
            "line": "demo",
            "dataset": {**sources, "base_classes": base},
            "pretrain_decoder": {"steps": 2, "images_per_step": 2},
            "propose": {"points": 12, "min_objectness": 0.0},
        },
    )


def check(*args: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, args)])


def advice_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    first, *others = json.loads(result.stdout)
    assert all(other["advice"] is None for other in others)
    return dict(first["advice"])


def test_files_alone(line: Line) -> None:
    result = check("-w", line.layout.root, "--json")
    found = advice_of(result)
    assert not found["with_features"] and found["label_errors"] == []
    assert "'samif run' computes" in result.stderr
    assert [(pair["first"], pair["second"]) for pair in found["leaks"]] == [(f"train/{LEAKED}", "val/again.jpg")]
    assert found["duplicates"] == []
    assert (found["images"], found["background_images"]) == (12, 0)
    for entry in found["classes"]:
        assert entry["distinct_images"] == entry["images"]
        assert (entry["verdict"] == "not yet") is (entry["images"] < 5) and entry["naming"] is None
        assert entry["next"]


def test_the_table_and_the_page(line: Line) -> None:
    result = check("-w", line.layout.root)
    page = line.layout.reports / "data.html"
    assert result.exit_code == 0 and str(page) in result.stdout
    assert "1 leak from training into validation" in result.stdout and "photograph it in" in " ".join(
        result.stdout.split()
    )
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") == 2 and "again.jpg" in html and "samif run" in html


def test_with_what_a_run_left(line: Line) -> None:
    line.run("dataset", "embed", "pretrain_decoder", "propose")
    result = check("-w", line.layout.root, "--json")
    found = advice_of(result)
    assert found["with_features"] and "not judged" not in result.stderr
    named = [entry["naming"]["right"] for entry in found["classes"]]
    assert all(0 <= right <= 1 for right in named)
    for error in found["label_errors"]:
        assert error["split"] in ("train", "val") and error["remedy"] and 0 < error["score"] <= 1
    assert "labels to look at" in (line.layout.reports / "data.html").read_text().lower()


def test_labels_may_change_after_the_run(line: Line, tmp_path: Path) -> None:
    """Embeddings are of images; masks are pooled anew."""
    content = json.loads(Path(line.params.dataset.train.annotations).read_text())  # type: ignore[union-attr]
    removed = content["annotations"].pop()
    changed = tmp_path / "labels.json"
    changed.write_text(json.dumps(content))
    train = line.params.dataset.train.model_dump() | {"annotations": str(changed)}  # type: ignore[union-attr]
    section = line.params.dataset.model_dump(mode="json") | {"train": train}
    other = write(tmp_path / "ws", line.params.model_dump(mode="json") | {"dataset": section})
    shutil.copytree(line.layout.artifacts, other.layout.artifacts)
    shutil.copytree(line.layout.state, other.layout.state)
    found = advice_of(check("-w", other.layout.root, "--json"))
    assert found["with_features"]
    assert all(error["annotation"] != removed["id"] for error in found["label_errors"])


@pytest.mark.parametrize("gone", ["embeddings.parquet", "store", "encoder"])
def test_what_a_run_left_may_be_gone(line: Line, tmp_path: Path, gone: str) -> None:
    content = line.params.model_dump(mode="json")
    if gone == "encoder":
        content["encoder"]["tiles"] = 2
    other = write(tmp_path / "ws", content)
    shutil.copytree(line.layout.artifacts, other.layout.artifacts)
    if gone == "embeddings.parquet":
        other.layout.embeddings.unlink()
    result = check("-w", other.layout.root, "--json")  # the store was never copied
    assert not advice_of(result)["with_features"]
    assert "judged" in result.stderr and "samif run" in result.stderr


def test_files_without_a_workspace(line: Line, tmp_path: Path) -> None:
    source = line.params.dataset.train
    assert source is not None
    files = ("--images", source.images, "--annotations", source.annotations)
    result = check(*files)
    assert result.exit_code == 0 and "images in question" not in result.stdout and "ready" not in result.stdout
    assert "not yet" in result.stdout
    page = tmp_path / "new" / "page.html"
    assert str(page) in "".join(check(*files, "--page", page).stdout.split("\n")) and page.is_file()


def test_without_advice(line: Line) -> None:
    result = check("-w", line.layout.root, "--no-advice", "--json")
    assert [entry["advice"] for entry in json.loads(result.stdout)] == [None, None]


def test_no_advice_on_data_with_errors(line: Line, tmp_path: Path) -> None:
    content = json.loads(Path(line.params.dataset.train.annotations).read_text())  # type: ignore[union-attr]
    content["images"].append(dict(content["images"][0], file_name="other.jpg"))  # the id again
    broken = tmp_path / "labels.json"
    broken.write_text(json.dumps(content))
    images = line.params.dataset.train.images  # type: ignore[union-attr]
    result = check("--images", images, "--annotations", broken, "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)[0]["advice"] is None


def test_held_out_images_count_as_training_images(line: Line, tmp_path: Path) -> None:
    """A near-duplicate on the other side of the split is a leak."""
    source = line.params.dataset.train
    assert source is not None
    shutil.copytree(source.images, tmp_path / "images")
    content = json.loads(Path(source.annotations).read_text())
    count = len(content["images"])
    for number, image in enumerate(list(content["images"])):  # every image twice: some pair is parted
        again = f"again_{number}.jpg"
        Image.open(tmp_path / "images" / image["file_name"]).save(tmp_path / "images" / again, quality=60)
        content["images"].append({**image, "id": 500 + image["id"], "file_name": again})
        content["annotations"] += [
            {**a, "id": 5000 + a["id"], "image_id": 500 + image["id"]}
            for a in content["annotations"]
            if a["image_id"] == image["id"]
        ]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    section = line.params.dataset.model_dump(mode="json") | {
        "train": {"images": str(tmp_path / "images"), "annotations": str(tmp_path / "labels.json")},
        "val": None,
    }
    other = write(tmp_path / "ws", line.params.model_dump(mode="json") | {"dataset": section})
    found = advice_of(check("-w", other.layout.root, "--json"))
    assert found["images"] == 2 * count and found["leaks"]
    assert len(found["leaks"]) + len(found["duplicates"]) == count
    assert all(entry["distinct_images"] * 2 == entry["images"] for entry in found["classes"])


def test_a_workspace_that_takes_no_page_is_checked_all_the_same(line: Line, tmp_path: Path) -> None:
    other = write(tmp_path / "ws", line.params.model_dump(mode="json"))
    other.layout.reports.write_text("a file where the folder of pages would be")
    result = check("-w", other.layout.root)
    assert result.exit_code == 0 and "images in question" not in result.stdout
    assert "was not written" in result.stderr and "--page FILE" in result.stderr
