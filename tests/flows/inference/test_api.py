"""The Python API: `from samif import load_model`, from a registry, a workspace and a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import samif
from flows.cli import app, predict, registry  # noqa: F401  (register their commands)
from samif import load_model
from samif.errors import DataError, ObjectMissing, SamifError
from samif.inference import model as model_module
from samif.inference.detections import Detections
from tests.support.served_line import CLASSES, ServedLine, png

EXAMPLE = (samif.__doc__ or "").partition("::\n")[2]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> ServedLine:
    """Versions 1 to 3; 1 is the champion. part.jpg lies in the workspace."""
    line = ServedLine(tmp_path_factory.mktemp("line") / "ws", migrated)
    for count in (2, 3, 4):
        line.add("base", count)
    line.alias("champion", 1)
    (line.root / "part.png").write_bytes(png())
    Image.open(line.root / "part.png").save(line.root / "part.jpg", quality=95)
    return line


@pytest.fixture
def here(line: ServedLine, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(line.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return line.root


def test_the_example_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(row.removeprefix("    ") for row in EXAMPLE.splitlines())
    assert len([row for row in code.splitlines() if row]) <= 10
    values: dict[str, object] = {}
    exec(compile(code, "example", "exec"), values)
    detections = values["detections"]
    assert isinstance(detections, Detections) and len(detections) > 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(detections) + 1 and printed[-1] == str((len(detections), 40, 60))


def test_importing_samif_is_light() -> None:
    names = "{'torch', 'flows', 'mlflow', 'ray'}"
    code = f"import sys\nfrom samif import load_model\nprint(*sorted({names} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = samif.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "classes"),
    [
        ("models:/demo-classifier@champion", 2),
        ("models:/demo-classifier/2", 3),
        ("demo-classifier/3", 4),
        ("demo@champion", 2),
    ],
)
def test_addresses_of_a_registry(here: Path, address: str, classes: int) -> None:
    assert load_model(address).class_names == CLASSES[:classes]


def test_the_environment_names_the_registry(line: ServedLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ObjectMissing, match="set MLFLOW_TRACKING_URI"):
        load_model("models:/demo-classifier@champion")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{line.root / '.samif' / 'mlflow.db'}")
    assert load_model("models:/demo-classifier@champion").class_names == CLASSES[:2]
    assert not (tmp_path / ".samif").exists()


def test_predict_and_the_command_agree(here: Path, tmp_path: Path) -> None:
    words = ["predict", "part.jpg", "part.png", "--model", "demo@champion", "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ran.exit_code == 0
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    found = load_model("demo@champion").predict(["part.jpg", here / "part.png"])
    assert written == [item for number, one in enumerate(found, start=1) for item in one.to_coco(number)]


def test_a_file_an_image_and_an_array_give_the_same(here: Path) -> None:
    model = load_model("demo@champion")
    image = Image.open("part.png")
    expected = model.predict("part.png").to_coco()
    assert model.predict(image).to_coco() == expected and model.predict(np.asarray(image)).to_coco() == expected
    turned = Image.open("part.png").transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # to be shown turned back
    assert model.predict(turned).to_coco() == expected
    assert model.predict([]) == []


def test_detections(here: Path) -> None:
    found = load_model("demo@champion").predict("part.jpg", score=0.0)
    count = len(found)
    assert found.masks.shape == (count, 40, 60) and found.masks.dtype == bool
    assert found.boxes.shape == (count, 4) and found.scores.shape == (count,) and len(found.class_names) == count
    for mask, (x0, y0, x1, y1) in zip(found.masks, found.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
    assert found.categories == (*CLASSES[:2], "unknown")
    nothing = Detections(4, 6, [], np.zeros((0, 4)), np.zeros(0), (), ("bolt", "unknown"))
    assert nothing.masks.shape == (0, 4, 6) and nothing.to_coco() == []


def test_a_folder_needs_no_model_source(line: ServedLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = line.registry.download("demo/1")
    monkeypatch.setattr(model_module, "entry_points", lambda group: ())
    monkeypatch.chdir(tmp_path)
    assert load_model(folder).class_names == load_model(str(folder)).class_names == CLASSES[:2]
    with pytest.raises(ObjectMissing, match=r"no classifier.safetensors in 'demo@champion', and no package"):
        load_model("demo@champion")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("models:/demo-classifier@nobody", "has no alias 'nobody'"),
        ("demo-classifier/9", "has no version 9"),
        ("nothing-classifier", "has no 'nothing-classifier'"),
        ("Demo@champion", "capital letters"),
        ("./nowhere", "does not name a version"),
    ],
)
def test_what_is_not_there_is_one_sentence(here: Path, address: str, sentence: str) -> None:
    with pytest.raises(SamifError, match=sentence) as refused:
        load_model(address)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4), np.uint8), r"got shape \(4, 4\) and type uint8"),
        (np.zeros((4, 4, 3)), "type float64"),
        (np.zeros((0, 4, 3), np.uint8), "got shape"),
        ("gone.jpg", "gone.jpg does not exist"),
        (7, "got int"),
    ],
)
def test_an_image_that_cannot_be_used_is_one_sentence(here: Path, image: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load_model("demo@champion").predict(image)  # type: ignore[call-overload]
