"""Broken images of a labelled data set: refused, or left out of every later stage, as params.yaml says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.quarantine import BrokenImage, Quarantine
from flows.loaders.inputs import dataset_of, index_of, source_of
from flows.report.collect import collect
from flows.report.publish import publish
from flows.stages import run_stage
from flows.workspace.layout import SPLITS, Layout
from samif.config import DrawnParams, Params
from samif.dataset.draw.line import draw_line
from samif.errors import SamifError
from tests.support import report_workspace


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Seven drawn scenes for training, two for validation, as somebody's own data."""
    draw_line(tmp_path / "data", DrawnParams(base_images=2, mixed_images=5, val_images=2, size=96))
    return Layout(tmp_path / "ws")


def params_of(layout: Layout, policy: str, **more: object) -> Params:
    data = layout.root.parent / "data"
    sources = {
        split: {"images": f"{data}/{split}/images", "annotations": f"{data}/{split}/annotations.json"}
        for split in SPLITS
    }
    dataset = {**sources, "base_classes": ["hex_nut"], "broken_images": policy, **more}
    return Params.model_validate({"line": "own", "dataset": dataset})


def images(layout: Layout, split: str) -> list[Path]:
    return sorted((layout.root.parent / "data" / split / "images").iterdir())


def run(layout: Layout, policy: str, *stages: str, **more: object) -> Params:
    params = params_of(layout, policy, **more)
    for stage in stages:
        run_stage(stage, None, layout, params)
    return params


def left_out(layout: Layout, stage: str) -> list[tuple[str, str, str]]:
    return [(p.split, p.file, p.reason) for p in Quarantine.load(layout.quarantine(stage)).images]


def test_good_images_leave_empty_lists(layout: Layout) -> None:
    run(layout, "refuse", "dataset", "embed")
    assert left_out(layout, "dataset") == left_out(layout, "embed") == []


def test_refuse_names_all_that_is_wrong_and_writes_nothing(layout: Layout) -> None:
    first, second, *_ = images(layout, "train")
    first.write_bytes(b"")
    second.write_text("<html>")
    with pytest.raises(SamifError, match=r"2 errors: .*is empty.*known format"):
        run(layout, "refuse", "dataset")
    assert not layout.index("train").exists()
    assert not layout.quarantine("dataset").exists()


def test_quarantine_leaves_broken_images_out_with_their_labels(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, *rest = images(layout, "train")
    broken.write_bytes(broken.read_bytes()[:200])
    images(layout, "val")[0].unlink()
    params = run(layout, "quarantine", "dataset", "embed")
    (train, file, reason), (val, *_, gone) = left_out(layout, "dataset")
    assert (train, val, file) == ("train", "val", broken.name)
    assert "cannot be decoded" in reason and gone == "does not exist"
    assert f"left out 2 broken images: {broken.name} cannot be decoded" in capsys.readouterr().err
    assert [p.file_name for p in dataset_of(layout, params, "train").images] == [path.name for path in rest]
    assert len(dataset_of(layout, params, "val").images) == 1
    assert left_out(layout, "embed") == []


def test_broken_labels_have_a_policy_of_their_own(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = layout.root.parent / "data" / "train" / "annotations.json"
    coco = json.loads(annotations.read_text())
    last, other = coco["annotations"][-1], coco["annotations"][-2]
    last["category_id"] = 999
    other["segmentation"] = [[3, 3], [1, 1, 20, 1, 20, 20]]
    annotations.write_text(json.dumps(coco))
    with pytest.raises(SamifError, match="2 errors: .*polygon of 1 point.*category_id 999"):
        run(layout, "refuse", "dataset", broken_labels="refuse")
    assert not layout.index("train").exists() and not layout.quarantine("dataset").exists()
    params = run(layout, "refuse", "dataset")
    labels = Quarantine.load(layout.quarantine("dataset")).labels
    assert [(b.split, b.annotation, b.left_out) for b in labels] == [
        ("train", other["id"], False), ("train", last["id"], True),
    ]  # fmt: skip
    assert all(label.reason and label.remedy for label in labels)
    said = capsys.readouterr().err
    assert "train: changed 1 label, the first is " in said and "train: left out 1 label, the first is " in said
    assert f"the list of these labels is {layout.quarantine('dataset')}" in said
    kept = {a.id for p in index_of(layout, params, "train").images for a in p.annotations}
    assert other["id"] in kept and last["id"] not in kept


def test_too_many_broken_labels_stop_the_stage(layout: Layout) -> None:
    annotations = layout.root.parent / "data" / "train" / "annotations.json"
    coco = json.loads(annotations.read_text())
    for record in coco["annotations"]:
        record["segmentation"] = []
    annotations.write_text(json.dumps(coco))
    with pytest.raises(SamifError, match=r"1 error: .* labels cannot be used .* limit of 50%; most often .*no outline"):
        run(layout, "quarantine", "dataset")
    assert not layout.index("train").exists()


def test_an_empty_class_and_other_numbers_change_nothing_that_follows(layout: Layout) -> None:
    run(layout, "refuse", "dataset")
    outputs = [layout.index("train"), layout.index("val"), layout.quarantine("dataset")]
    before = [path.read_bytes() for path in outputs]
    for split, shift in (("train", 10), ("val", 20)):
        annotations = layout.root.parent / "data" / split / "annotations.json"
        coco = json.loads(annotations.read_text())
        for record in coco["annotations"]:
            record["category_id"] += shift
        for record in coco["categories"]:
            record["id"] += shift
        coco["categories"].insert(0, {"id": 0, "name": "a new class"})
        coco["categories"].reverse()
        annotations.write_text(json.dumps(coco))
    run(layout, "refuse", "dataset")
    assert [path.read_bytes() for path in outputs] == before


def test_validation_may_list_fewer_classes(layout: Layout) -> None:
    run(layout, "refuse", "dataset")
    before = layout.index("val").read_bytes()
    annotations = layout.root.parent / "data" / "val" / "annotations.json"
    coco = json.loads(annotations.read_text())
    used = {record["category_id"] for record in coco["annotations"]}
    coco["categories"] = [record for record in coco["categories"] if record["id"] in used]
    annotations.write_text(json.dumps(coco))
    run(layout, "refuse", "dataset")
    assert layout.index("val").read_bytes() == before


def test_an_image_that_breaks_before_embedding_is_left_out_of_what_follows(layout: Layout) -> None:
    params = run(layout, "quarantine", "dataset")
    broken = images(layout, "train")[-1]
    broken.write_bytes(broken.read_bytes() + b"\0")
    run(layout, "quarantine", "embed")
    assert left_out(layout, "embed") == [("train", broken.name, "has changed since it was indexed")]
    source = source_of(layout, params, "train")
    assert broken.name not in [image.file_name for image in source.dataset.images]
    assert len(source.read(source.dataset.images)) == len(index_of(layout, params, "train").images) - 1


def test_refuse_embeds_the_rest_before_it_ends(layout: Layout) -> None:
    run(layout, "refuse", "dataset")
    broken = images(layout, "train")[-1]
    whole = broken.read_bytes()
    broken.unlink()
    with pytest.raises(SamifError, match=rf"all is embedded but 1 broken image: {broken.name} does not exist; copy"):
        run(layout, "refuse", "embed")
    assert not layout.embeddings.exists()
    assert left_out(layout, "embed") == [("train", broken.name, "does not exist")]
    shards = {path: path.stat().st_mtime_ns for path in layout.state.rglob("*.safetensors")}
    assert shards
    broken.write_bytes(whole)
    run(layout, "refuse", "embed")
    assert len(EmbeddingManifest.load(layout.embeddings).images) == 9
    now = {path: path.stat().st_mtime_ns for path in layout.state.rglob("*.safetensors")}
    assert shards.items() < now.items(), "what was embedded was not computed again"


@pytest.mark.parametrize(("broken", "said"), [(0, None), (1, "1 broken image was left out"), (2, "2 broken images")])
def test_the_report_says_how_many_were_left_out(tmp_path: Path, broken: int, said: str | None) -> None:
    layout, params = report_workspace.build(tmp_path, images=2)
    lost = [BrokenImage(split="val", file=f"{n}.jpg", reason="is empty", remedy="copy it") for n in range(broken)]
    for stage, some in (("dataset", lost[:1]), ("embed", lost[1:])):
        Quarantine(policy="quarantine", images=tuple(some)).save(layout.quarantine(stage))
    collect(layout, params)
    page = publish(layout, {"decoder": None, "classifiers": {}}).read_text(encoding="utf-8")
    assert (said in page) if said else "left out" not in page
