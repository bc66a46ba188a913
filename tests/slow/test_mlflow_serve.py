"""`mlflow models serve` with a registered version: the answers of `samif predict`, over HTTP, with no way out."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from flows.inference.image_files import find_images
from flows.inference.predict import predict
from flows.inference.source import find
from samif.inference.model import open_model
from tests.support.served_line import ServedLine, png, until
from tests.support.services import free_port, interrupt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"
"""A proxy that does not exist: whatever would leave this machine fails."""


def test_mlflow_models_serve_answers_as_samif_predict(tmp_path: Path) -> None:
    line = ServedLine(tmp_path / "ws", None)
    line.add("base", 2)
    assert line.add("s1", 3, after="base") == 2
    images = [png(), png(1, 33, 57)]
    for number, content in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(content)
    given = find_images([tmp_path / f"{number}.png" for number in range(len(images))])
    predict(open_model(find("demo/2", line.root), device="cpu"), given.images, tmp_path / "out")
    expected = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {one["image_id"] for one in expected} == {1, 2}

    port, log = free_port(), tmp_path / "log"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    environment = (
        os.environ
        | proxies
        | {
            "no_proxy": "127.0.0.1",
            "MLFLOW_TRACKING_URI": f"sqlite:///{line.root}/.samif/mlflow.db",
            "SAMIF_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where MLflow looks for uvicorn
        }
    )
    command = ["models", "serve", "-m", "models:/demo-classifier/2", "--env-manager", "local", "-p", str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command], env=environment, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True, cwd=tmp_path,
        )  # fmt: skip

    def ready() -> bool:
        assert server.poll() is None, log.read_text()
        try:
            return requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    try:
        until(ready, 180)
        records = [{"image": base64.b64encode(content).decode()} for content in images]
        answered = requests.post(
            f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": records}, timeout=120
        )
        paths = {"dataframe_split": {"columns": ["path"], "data": [[str(tmp_path / "0.png")]]}}
        by_path = requests.post(f"http://127.0.0.1:{port}/invocations", json=paths, timeout=120)
        refused = requests.post(
            f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": [{"image": "AAAA"}]}, timeout=120
        )
    finally:
        interrupt(server)
    assert answered.status_code == 200, answered.text
    found = [
        {"image_id": number, **{key: value for key, value in one.items() if key != "class"}}
        for number, answer in enumerate(answered.json()["predictions"], start=1)
        for one in answer["instances"]
    ]
    assert found == expected
    assert by_path.json()["predictions"] == answered.json()["predictions"][:1]
    assert refused.status_code == 400 and "image 1 of image: it is not an image in a known format" in refused.text
