"""Bad input through the command line: one sentence that names the place and the remedy, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from samif.config import DrawnParams
from samif.dataset.draw.line import draw_line
from tests.support.console import Done, refusal, samif

Coco = dict[str, Any]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good images, `images/` and `annotations.json`."""
    folder = tmp_path_factory.mktemp("pristine")
    draw_line(folder, DrawnParams(base_images=1, mixed_images=2, val_images=1, size=96))
    return folder / "train"


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    """A copy of them to be spoilt."""
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def content(data: Path) -> Coco:
    loaded: Coco = json.loads((data / "annotations.json").read_text())
    return loaded


def instances(coco: Coco, name: str) -> int:
    number = next(c["id"] for c in coco["categories"] if c["name"] == name)
    return sum(a["category_id"] == number for a in coco["annotations"])


def init(data: Path, *words: str | Path) -> Done:
    """`samif init` of a workspace beside the data."""
    source = ["--train-images", data / "images", "--train-annotations", data / "annotations.json"]
    return samif(data.parent, "init", data.parent / "ws", *source, *words)


def workspace(data: Path, *words: str | Path) -> Path:
    done = init(data, *words)
    assert done.code == 0, done.err
    return data.parent / "ws"


def edit(root: Path, before: str, after: str) -> None:
    text = (root / "params.yaml").read_text()
    assert text.count(before) == 1, before
    (root / "params.yaml").write_text(text.replace(before, after))


def _missing(data: Path, coco: Coco) -> None:
    (data / "images" / "scene_0001.jpg").unlink()


def _truncated(data: Path, coco: Coco) -> None:
    path = data / "images" / "scene_0001.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def _empty_file(data: Path, coco: Coco) -> None:
    (data / "images" / "scene_0001.jpg").write_bytes(b"")


def _text_file(data: Path, coco: Coco) -> None:
    (data / "images" / "scene_0001.jpg").write_text("not an image")


def _unlabel(coco: Coco, image: int) -> None:
    """Take the labels of an image away, which its error would make wrong as well."""
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != image]


def _wrong_size(data: Path, coco: Coco) -> None:
    _unlabel(coco, 2)
    coco["images"][1]["width"] = 97


def _unknown_category(data: Path, coco: Coco) -> None:
    coco["annotations"][0]["category_id"] = 99


def _unknown_image(data: Path, coco: Coco) -> None:
    coco["annotations"][0]["image_id"] = 77


def _outside(data: Path, coco: Coco) -> None:
    coco["annotations"][0]["segmentation"] = [[200, 200, 240, 200, 240, 240]]


def _sticks_out(data: Path, coco: Coco) -> None:
    coco["annotations"][0]["segmentation"] = [[60, 10, 102, 10, 102, 40, 60, 40]]


def _empty_mask(data: Path, coco: Coco) -> None:
    coco["annotations"][0]["segmentation"] = {"size": [96, 96], "counts": [96 * 96]}


def _no_mask(data: Path, coco: Coco) -> None:
    coco["annotations"][0]["segmentation"] = []


def _same_image_ids(data: Path, coco: Coco) -> None:
    _unlabel(coco, 3)
    coco["images"][2]["id"] = coco["images"][1]["id"]


def _leads_out(data: Path, coco: Coco) -> None:
    shutil.move(data / "images" / "scene_0001.jpg", data / "scene_0001.jpg")
    coco["images"][1]["file_name"] = "../scene_0001.jpg"


SPOILT: list[tuple[Callable[[Path, Coco], None], list[str]]] = [
    (_missing, ["scene_0001.jpg, image 2", "does not exist", "copy the image there"]),
    (_truncated, ["scene_0001.jpg, image 2", "cannot be decoded", "copy it again"]),
    (_empty_file, ["scene_0001.jpg, image 2", "is empty (0 bytes)", "copy the image again"]),
    (_text_file, ["scene_0001.jpg, image 2", "is not an image in a known format", "save it as JPEG or PNG"]),
    (_wrong_size, ["scene_0001.jpg, image 2", "is 96 x 96, but is declared 97 x 96", "export the annotations"]),
    (_same_image_ids, ["scene_0002.jpg, image 2", "shares its image id with scene_0001.jpg", "number the images"]),
    (_leads_out, ["../scene_0001.jpg, image 2", "does not exist", "copy the image there"]),
]
"""How to spoil the data, and what the sentence must say: the place, what is wrong with it, the remedy."""


@pytest.mark.parametrize(("spoil", "said"), SPOILT, ids=[spoil.__name__.strip("_") for spoil, _ in SPOILT])
def test_spoilt_images_and_labels_are_refused_by_name(
    data: Path, spoil: Callable[[Path, Coco], None], said: list[str]
) -> None:
    root, coco = workspace(data), content(data)
    spoil(data, coco)
    (data / "annotations.json").write_text(json.dumps(coco))

    refusal(samif(root, "stage", "dataset"), "the data set has 1 error: ", *said)
    assert [path for path in (root / "artifacts").rglob("*") if path.is_file()] == []

    checked = samif(root, "data", "check", "--json")
    refusal(checked, "1 error")
    (found,) = (f for f in json.loads(checked.out)[0]["findings"] if f["level"] == "error")
    assert all(words in f"{found['what']}; {found['remedy']}" for words in said[1:])


BROKEN_LABELS: list[tuple[Callable[[Path, Coco], None], list[str]]] = [
    (_unknown_category, ["scene_0000.jpg, image 1, annotation 1", "category_id 99", "add the class or correct"]),
    (_unknown_image, ["annotations.json, annotation 1", "image_id 77", "add the image or delete the annotation"]),
    (_outside, ["scene_0000.jpg, image 1, annotation 1", "lies outside the 96 x 96 image", "export them again"]),
    (_sticks_out, ["scene_0000.jpg, image 1, annotation 1", "sticks 6 pixels out of", "export them again"]),
    (_empty_mask, ["scene_0000.jpg, image 1, annotation 1", "has an empty mask", "outline the object again"]),
    (_no_mask, ["scene_0000.jpg, image 1, annotation 1", "has no outline", "outline the object"]),
]


@pytest.mark.parametrize(
    ("spoil", "said"), BROKEN_LABELS, ids=[spoil.__name__.strip("_") for spoil, _ in BROKEN_LABELS]
)
def test_broken_labels_are_left_out_or_refused_by_name(
    data: Path, spoil: Callable[[Path, Coco], None], said: list[str]
) -> None:
    shutil.copy(data / "annotations.json", data / "val.json")  # a split of three images may leave a class out
    root = workspace(data, "--val-images", data / "images", "--val-annotations", data / "val.json")
    coco = content(data)
    coco["annotations"].append({**coco["annotations"][0], "id": 10**6})  # the class has another object
    spoil(data, coco)
    (data / "annotations.json").write_text(json.dumps(coco))

    done = samif(root, "stage", "dataset")
    assert done.code == 0, done.err
    assert all(words in done.err for words in said), done.err
    (label,) = json.loads((root / "artifacts" / "quarantine" / "dataset.json").read_text())["labels"]
    assert all(words in f"{label['reason']}; {label['remedy']}" for words in said[1:])
    checked = samif(root, "data", "check")
    assert checked.code == 0, checked.err

    edit(root, "broken_labels: quarantine", "broken_labels: refuse")
    refusal(samif(root, "stage", "dataset"), "the data set has 1 error: ", *said)
    checked = samif(root, "data", "check", "--json")
    refusal(checked, "1 error")
    (found,) = (f for f in json.loads(checked.out)[0]["findings"] if f["level"] == "error")
    assert all(words in f"{found['what']}; {found['remedy']}" for words in said[1:])


def test_good_images_pass_the_same_commands(data: Path) -> None:
    root = workspace(data)
    checked = samif(root, "data", "check")
    assert checked.code == 0, checked.err
    assert "3 images" in checked.out


def test_a_run_shows_the_sentence_of_its_stage_once_and_keeps_a_record(data: Path) -> None:
    root, coco = workspace(data), content(data)
    _wrong_size(data, coco)
    (data / "annotations.json").write_text(json.dumps(coco))
    sentence = refusal(samif(root, "run"), "scene_0001.jpg, image 2: is 96 x 96, but is declared 97 x 96")
    (record,) = (root / ".samif" / "runs").iterdir()
    told = json.loads(record.read_text())
    assert (told["outcome"], f"samif: {told['error']}", told["versions"]) == ("failed", sentence, None)
    assert not (root / "reports").exists() and not (root / "dvc.lock").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--session", "s1=nix"], ["class 'nix' of session 's1'", "annotations.json", "it has hex_nut"]),
        (["--session", "s1=gear", "--shots", "50"], ["class 'gear'", "fewer than 50 shots", "label more images"]),
        (["--encoder", "vit_x"], ["encoder 'vit_x'", "'vit_b'"]),
        (["--encoder", "vit_b", "--checkpoint", "nix.pth"], ["nix.pth does not exist", "give a file"]),
        (["--session", "base=gear", "--shots", "1"], ["may not be named 'base'"]),
        (["--line", "My Line"], ["line", "My Line"]),
    ],
    ids=["unknown class", "too few", "unknown encoder", "no checkpoint", "session named base", "line"],
)
def test_init_refuses_and_leaves_nothing(data: Path, words: list[str], said: list[str]) -> None:
    refusal(init(data, *words), *said)
    assert not (data.parent / "ws").exists()


def test_a_class_in_two_sessions_is_refused_by_init_and_in_params(data: Path) -> None:
    coco = content(data)
    seen = {c["name"] for c in coco["categories"] if instances(coco, c["name"])}
    one, other, *_ = sorted(seen)
    twice = ["--session", f"s1={one}", "--session", f"s2={one}", "--shots", "1"]
    refusal(init(data, *twice), f"class '{one}' of session 's2' is already in session 's1'", "params.yaml")
    assert not (data.parent / "ws").exists()

    root = workspace(data, "--session", f"s1={one}", "--session", f"s2={other}", "--shots", "1")
    edit(root, f"classes: [{other}]", f"classes: [{one}]")
    refusal(samif(root, "run"), root / "params.yaml", f"class '{one}' of session 's2' is already in session 's1'")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("{", ["annotations.json is not JSON", "export the annotations as COCO instances again"]),
        ("[]", ["annotations.json holds a list, not a COCO object", "export the annotations as COCO instances"]),
        (None, ["annotations.json does not exist", "name the COCO annotation file"]),
    ],
    ids=["not JSON", "no object", "missing"],
)
def test_init_refuses_what_is_no_coco_file(data: Path, file: str | None, said: list[str]) -> None:
    if file is None:
        (data / "annotations.json").unlink()
    else:
        (data / "annotations.json").write_text(file)
    refusal(init(data), *said)
    assert not (data.parent / "ws").exists()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  steps: 400", "  stepps: 400", ["key 'pretrain_decoder.stepps'", "got 400", "correct its spelling"]),
        ("  steps: 400", '  steps: "400"', ["key 'pretrain_decoder.steps'", "expected a valid integer", "'400'"]),
        ("  steps: 400", "  steps: 0", ["key 'pretrain_decoder.steps'", "greater than or equal to 1", "got 0"]),
        ("  steps: 400", "  steps: [", ["is not readable YAML"]),
    ],
    ids=["unknown key", "wrong type", "out of range", "not YAML"],
)
def test_params_are_refused_by_key_before_anything_runs(data: Path, before: str, after: str, said: list[str]) -> None:
    root = workspace(data)
    steps = next(line for line in (root / "params.yaml").read_text().splitlines() if line.startswith("  steps:"))
    edit(root, " ".join(steps.split()[:2]), after.strip())
    for command in ("run", "why"):
        refusal(samif(root, command), root / "params.yaml", *said)
    assert not (root / "artifacts").exists() and not (root / ".samif" / "runs").exists()


def test_a_checkpoint_of_another_architecture_is_refused(data: Path) -> None:
    checkpoint = data.parent / "vit_b.safetensors"
    checkpoint.write_bytes((files("samif") / "assets" / "tiny.safetensors").read_bytes())
    coco = content(data)  # every class of it must be shown, for all of them become base classes
    coco["categories"] = [c for c in coco["categories"] if instances(coco, c["name"])]
    (data / "annotations.json").write_text(json.dumps(coco))
    val = ["--val-images", data / "images", "--val-annotations", data / "annotations.json"]
    root = workspace(data, *val, "--encoder", "vit_b", "--checkpoint", checkpoint)
    assert samif(root, "stage", "dataset").code == 0
    refused = samif(root, "stage", "embed")
    refusal(refused, checkpoint, "weights of 'tiny'", "encoder.name: vit_b", "give a 'vit_b' file")
    assert not (root / "artifacts" / "embeddings.parquet").exists() and not (root / ".samif" / "embeddings").exists()


@pytest.mark.parametrize("command", [["run"], ["why"], ["session", "remove", "s1"], ["data", "check"]], ids=" ".join)
def test_no_workspace_here(tmp_path: Path, command: list[str]) -> None:
    refusal(samif(tmp_path, *command), "params.yaml", "run 'samif init' to make")
    assert list(tmp_path.iterdir()) == []


def test_a_session_or_a_model_that_is_not_there(data: Path) -> None:
    root = workspace(data)
    image = data / "images" / "scene_0000.jpg"
    before = (root / "params.yaml").read_bytes()
    refusal(samif(root, "session", "remove", "nix"), "no session 'nix' in params.yaml", "it has none")
    refusal(samif(root, "stage", "session", "nix"), "no session 'nix'", "params.yaml", "samif session add")
    refusal(samif(root, "session", "add", "s1=nix"), "class 'nix' of session 's1'", "annotations.json")
    refusal(samif(root, "predict", "--model", "nix/1", image), "'nix/1' is no folder", "run 'samif run' to register")
    refusal(samif(root, "predict", "--model", "nix", root / "nix.jpg"), "nix.jpg does not exist", "give images")
    assert (root / "params.yaml").read_bytes() == before
    assert not (root / "predictions").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["nix"],
        ["init", "ws"],
        ["init", "ws", "--train-images", ".", "--train-annotations", "a.json", "--val-images", "."],
        ["session", "add", "week1"],
        ["data", "check", "--images", "."],
        ["predict", "--model", "m", "--score", "2", "a.jpg"],
    ],
    ids=["no such command", "init without data", "half of val", "no classes", "half of a source", "score of 2"],
)
def test_wrong_usage_ends_with_2(tmp_path: Path, command: list[str]) -> None:
    done = samif(tmp_path, *command)
    assert done.code == 2
    assert "Usage: samif" in done.err and "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
