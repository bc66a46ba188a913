"""A registered version as MLflow's own calls and pages have it: on SQLite, and on a server over PostgreSQL and S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.inference.image_files import find_images
from flows.inference.predict import predict
from flows.inference.source import find
from flows.registry.registry import Registry
from flows.registry.verification import verify
from flows.registry.version_entry import version_entry
from samif.inference.model import open_model
from samif.io.hashing import file_sha256
from tests.support.served_line import ServedLine, png

OFFLINE = """
import json, socket, sys

def refuse(*_, **__):
    raise OSError("the network is off")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import mlflow, pandas as pd

uri, ref, image = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(ref)
content = open(image, "rb").read()
tables = [pd.DataFrame({"image": [content]}), pd.DataFrame({"path": [image, image]})]
by = [model.predict(table) for table in tables] + [model.predict(tables[0], params={"score": 0.9})]
example = model.predict(model.input_example)
signature = model.metadata.signature
print(json.dumps({"bytes": by[0], "paths": by[1], "few": by[2], "example": example,
                  "inputs": signature.inputs.input_names(), "outputs": signature.outputs.input_names(),
                  "params": [p.name for p in signature.params.params]}))
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> ServedLine:
    """Versions 1 and 2, and an image."""
    line = ServedLine(tmp_path_factory.mktemp("line") / "ws", migrated)
    assert (line.add("base", 2), line.add("s1", 3, after="base")) == (1, 2)
    (line.root / "image.png").write_bytes(png())
    return line


def of_samif(line: ServedLine, ref: str, out: Path) -> list[dict[str, Any]]:
    """results.json of `samif predict`, without the image's id."""
    given = find_images([line.root / "image.png"])
    predict(open_model(find(ref, line.root), device="cpu"), given.images, out)
    results: list[dict[str, Any]] = json.loads((out / "results.json").read_text())
    return [{key: value for key, value in one.items() if key != "image_id"} for one in results]


def without_names(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "class"} for one in answer["instances"]]


@pytest.mark.parametrize("number", [1, 2])
def test_pyfunc_answers_as_predict_does_with_the_network_off(line: ServedLine, tmp_path: Path, number: int) -> None:
    uri, ref = f"sqlite:///{line.root}/.samif/mlflow.db", f"models:/demo-classifier/{number}"
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE, uri, ref, str(line.root / "image.png")], capture_output=True, text=True,
        cwd=tmp_path, env=os.environ | {"SAMIF_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    expected = of_samif(line, f"demo/{number}", tmp_path / "out")
    assert expected and without_names(found["bytes"][0]) == expected
    assert [without_names(answer) for answer in found["paths"]] == [expected, expected]
    assert (found["bytes"][0]["width"], found["bytes"][0]["height"]) == (60, 40)
    assert len(found["few"][0]["instances"]) <= len(expected)
    assert found["example"][0]["width"] == 64
    assert (found["inputs"], found["outputs"]) == (["image", "path"], ["width", "height", "instances"])
    assert found["params"] == ["score"]
    assert len(list((tmp_path / "cache" / "decoders").iterdir())) == 1


def test_nothing_is_pickled_and_requirements_are_pinned(line: ServedLine) -> None:
    from mlflow.models import Model

    folder = line.artifacts(2)
    names = {path.name for path in folder.iterdir()}
    assert {"MLmodel", "pyfunc_entry.py", "classifier.safetensors", "card.json", "requirements.txt"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib", ".pt"))]
    flavour = Model.load(folder / "MLmodel").flavors["python_function"]
    assert flavour["model_code_path"].endswith("pyfunc_entry.py") and "python_model" not in flavour
    requirements = (folder / "requirements.txt").read_text().split()
    assert len(requirements) > 20 and all("==" in line for line in requirements)
    assert "decoder.safetensors" not in names


def test_a_registration_prints_nothing(tmp_path: Path, migrated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = ServedLine(tmp_path / "ws", migrated)
    assert line.add("base", 2) == 1
    assert capfd.readouterr() == ("", "")
    assert len(list((line.root / ".samif" / "mlartifacts" / "models").iterdir())) == 1


def test_a_version_without_its_decoder_says_where_to_look(line: ServedLine, tmp_path: Path, monkeypatch: Any) -> None:
    import mlflow

    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    try:
        with pytest.raises(Exception, match=r"decoder [0-9a-f]{12} is neither in .* set MLFLOW_TRACKING_URI"):
            mlflow.pyfunc.load_model(str(line.artifacts(1)))
    finally:
        mlflow.set_tracking_uri(before)


def pages(line: ServedLine) -> None:
    """What MLflow's pages show of version 2."""
    client, name = line.registry._store.client, line.model
    version = client.get_model_version(name, "2")
    assert "s1: 3 classes, built on 'base'" in version.description and "Made by ann" in version.description
    assert "samif registry promote" in client.get_registered_model(name).description
    run = client.get_run(version.run_id)
    assert run.info.run_name == "s1" and run.data.tags["mlflow.user"] == "ann"
    assert run.info.end_time - run.info.start_time == 1000  # the evaluation took a second
    assert run.data.tags["mlflow.note.content"] == version.description
    assert {"propose.points", "evaluate.duplicates", "session", "after"} <= run.data.params.keys()
    (found,) = run.inputs.dataset_inputs
    assert found.dataset.digest and found.dataset.name == f"{line.line} validation"
    assert json.loads(found.dataset.profile)["images"] == 4
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert str(logged.status) == "READY" and logged.model_id == version.tags["model_id"]
    assert logged.params["propose.points"] == "6" and logged.tags["session"] == "s1"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": name, "version": 2}]
    assert logged.tags["mlflow.note.content"] == version.description
    linked = {metric.key: metric for metric in logged.metrics}
    assert linked["AP/all"].value == 50.0 and linked["AP/all"].dataset_digest == found.dataset.digest
    experiment = run.info.experiment_id
    where = "metrics.`AP/all` > 49 and params.`propose.points` = '6' and tags.kind = 'classifier'"
    assert len(client.search_runs([experiment], where)) == 2
    assert len(client.search_logged_models([experiment], "metrics.`AP/all` > 49")) == 2


def test_the_pages_of_mlflow_on_sqlite(line: ServedLine) -> None:
    pages(line)


def test_the_pages_and_models_of_a_server_over_postgresql_and_s3(
    tmp_path: Path, registry_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    line = ServedLine(tmp_path / "ws", None, registry_server, "stamping")
    assert (line.add("base", 2), line.add("s1", 3, after="base")) == (1, 2)
    pages(line)
    (line.root / "image.png").write_bytes(png())
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry_server)
    try:
        line.alias("champion", 2)
        model = mlflow.pyfunc.load_model("models:/stamping-classifier@champion")
        (answer,) = model.predict(pd.DataFrame({"path": [str(line.root / "image.png")]}))
    finally:
        mlflow.set_tracking_uri(before)
    assert without_names(answer) == of_samif(line, "stamping/2", tmp_path / "out")


def test_the_run_of_a_decoder_shows_its_finetuning(tmp_path: Path, migrated: Path) -> None:
    line = ServedLine(tmp_path / "ws", migrated)
    folder = tmp_path / "decoder"
    folder.mkdir()
    (folder / "decoder.safetensors").write_bytes(b"weights")
    training = {
        "schema": 1, "classes": "base", "steps": 40, "seconds": 263.2, "kept": "finetuned",
        "curve": [{"step": step, "loss": 2.0 / step, "mask_iou": 0.5} for step in (1, 20, 40)],
        "quality": {"before": {"iou_base": 0.5, "iou_other": None}, "after": {"iou_base": 0.8, "iou_other": 0.7}},
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(training))
    number = line.registry.register_decoder("demo", folder, file_sha256(folder / "decoder.safetensors"), "ann")
    client = line.registry._store.client
    run = client.get_run(client.get_model_version("demo-decoder", str(number)).run_id)
    assert run.info.end_time - run.info.start_time == 263_200 and run.data.tags["mlflow.user"] == "ann"
    assert run.data.metrics | {"after/iou_base": 0.8, "before/iou_base": 0.5, "loss": 0.05} == run.data.metrics
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (20, 0.1), (40, 0.05)]
    assert run.data.params == {"classes": "base", "steps": "40", "kept": "finetuned"}
    assert "mean mask IoU from one point 0.500 before, 0.800 after" in run.data.tags["mlflow.note.content"]


def test_a_version_of_an_earlier_release_loads_and_verifies(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files lie in its run, and there is no logged model."""

    def earlier(card: Any, files: Any, *more: Any) -> Any:
        from dataclasses import replace

        entry = version_entry(card, files, *more)
        assert entry.model_folder is not None

        def write(stage: Path, run_id: str) -> None:
            for name, path in files.items():
                (stage / name).write_bytes(path.read_bytes())
            card.save(stage / "card.json")

        return replace(entry, write=write, model_folder=None, dataset=None, about={})

    line = ServedLine(tmp_path / "ws", migrated)
    with monkeypatch.context() as patch:
        patch.setattr("flows.registry.registry.version_entry", earlier)
        assert line.add("base", 2) == 1
    registry = Registry(None, line.root)
    assert (registry.download("demo/1") / "decoder.safetensors").is_file()
    assert "card.json" in registry.show("demo/1").files
    states = {item.name: item.state for item in verify(registry, "demo/1")}
    assert [states[name] for name in ("card", "classifier", "decoder", "evaluation")] == ["ok"] * 4
    (line.root / "image.png").write_bytes(png())
    assert of_samif(line, "demo/1", tmp_path / "out")
