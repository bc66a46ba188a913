"""The operating point and the trial of versions over the API."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from samif.evaluate.model import Evaluation
from tests.flows.console.conftest import client
from tests.support.report_workspace import naming_of

AT = "/api/workspaces/1"


def test_the_limit_of_false_names_is_moved_and_nothing_else(root: Path) -> None:
    path = root / "artifacts" / "evaluations" / "base" / "evaluation.json"
    evaluation = Evaluation.load(path).model_dump(mode="json", by_alias=True)
    Evaluation.model_validate(evaluation | {"naming": naming_of(["bolt", "gear"])}, strict=False).save(path)
    operator, before = client([root], [], "operator"), (root / "params.yaml").read_text()
    found = operator.get(f"{AT}/point").json()
    assert found["limit"] == 100.0 and len(found["naming"]["curve"]) == 11
    assert operator.put(f"{AT}/point", json={"limit": 25}).json()["limit"] == 25.0
    after = (root / "params.yaml").read_text()
    assert after == before.replace("false_names: 100.0", "false_names: 25", 1) != before
    for wrong in (0, -1, "many", None):
        assert operator.put(f"{AT}/point", json={"limit": wrong}).status_code == 422
    assert (root / "params.yaml").read_text() == after
    (action,) = operator.get(f"{AT}/actions").json()
    assert (action["before"], action["limit"]) == (100.0, 25.0)


def test_what_is_no_image_is_not_tried(root: Path) -> None:
    viewer = client([root], [], "viewer")
    for name, content in (("a.txt", b"x"), ("a.png", b"no image"), ("a.png", b"")):
        answer = viewer.post(f"{AT}/try", files={"image": (name, content)}, data={"versions": [1]})
        assert answer.status_code == 422 and name in answer.json()["error"]["message"], answer.text
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(buffer, format="PNG")
    missing = viewer.post(f"{AT}/try", files={"image": ("a.png", buffer.getvalue())}, data={"versions": [1]})
    assert missing.status_code == 404, missing.text
    many = viewer.post(f"{AT}/try", files={"image": ("a.png", buffer.getvalue())}, data={"versions": [1, 2, 3]})
    assert many.status_code == 422
