"""Label images over the API: outlines by clicks, names, drafts, saving, export, sessions."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from samif.config import load_params
from samif.masks.rle import decode, encode
from tests.flows.console.conftest import client, headers

SET = "/api/workspaces/1/sets/images"
ONE = {"name": "1.png"}


@pytest.fixture
def opened(root: Path) -> TestClient:
    return client([root], [root.parent / "photos" / "images"], "labeller")


def objects_of(root: Path) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The true objects of the first image, and their classes."""
    content = json.loads((root.parent / "photos" / "labels.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    return [a for a in content["annotations"] if a["image_id"] == 1], names


def centre(annotation: dict[str, Any]) -> tuple[float, float]:
    x, y, width, height = annotation["bbox"]
    return x + width / 2, y + height / 2


def click(opened: TestClient, x: float, y: float, **more: Any) -> dict[str, Any]:
    answer = opened.post(f"{SET}/outline", params=ONE, json={"clicks": [{"x": x, "y": y, "foreground": True}], **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_click_gives_an_outline_with_names(opened: TestClient, root: Path) -> None:
    assert opened.post(f"{SET}/ready", params=ONE).json()["where"] == "computed"
    assert opened.post(f"{SET}/ready", params=ONE).json()["where"] == "memory"
    true, _ = objects_of(root)
    found = click(opened, *centre(true[0]))
    mask = decode([found["rle"]])[0]
    x, y = centre(true[0])
    assert mask.shape == (96, 128) and mask[int(y), int(x)] and found["area"] == mask.sum()
    assert {n["name"] for n in found["names"]} == {"bolt", "gear", "unknown"}
    assert abs(sum(n["probability"] for n in found["names"]) - 1) < 1e-3
    assert found["rings"] and all(len(ring) >= 6 for ring in found["rings"])
    again = client([root], [root.parent / "photos" / "images"], "labeller")
    assert again.post(f"{SET}/ready", params=ONE).json()["where"] == "store"
    assert click(again, x, y)["rle"] == found["rle"] or np.mean(decode([click(again, x, y)["rle"]])[0] != mask) < 0.01


def test_a_small_object_is_looked_at_in_its_part(opened: TestClient) -> None:
    stroke = opened.post(f"{SET}/stroke", params=ONE, json={"polygon": [20, 20, 40, 20, 40, 40, 20, 40], "add": True})
    assert stroke.json()["area"] == 400
    found = click(opened, 30, 30, part=[0, 0, 64, 64])
    assert found["part"] == [0, 0, 64, 64] and decode([found["rle"]])[0].shape == (96, 128)


def test_areas_make_holes_and_parts(opened: TestClient) -> None:
    square = [10, 10, 50, 10, 50, 50, 10, 50]

    def stroke(polygon: list[float], add: bool, before: Any = None) -> dict[str, Any]:
        answer = opened.post(f"{SET}/stroke", params=ONE, json={"polygon": polygon, "add": add, "before": before})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    whole = stroke(square, True)
    holed = stroke([20, 20, 30, 20, 30, 30, 20, 30], False, whole["rle"])
    assert (whole["area"], holed["area"]) == (1600, 1500)
    assert (len(whole["rings"]), len(holed["rings"])) == (1, 2)
    parts = stroke([80, 60, 100, 60, 100, 80, 80, 80], True, holed["rle"])
    assert parts["area"] == 1900 and len(parts["rings"]) == 3 and parts["names"]
    nothing = stroke(square, False, whole["rle"])
    assert nothing["area"] == 0 and nothing["rings"] == [] and nothing["names"] == []


def test_labels_are_saved_and_a_second_person_is_told(opened: TestClient, root: Path) -> None:
    mask = np.zeros((1, 96, 128), dtype=bool)
    mask[0, 10:30, 20:40] = True
    thing = {"name": "nut", "rle": encode(mask)[0]}
    assert opened.get(f"{SET}/labels", params=ONE).json()["revision"] == 0
    saved = opened.put(f"{SET}/labels", params=ONE, json={"revision": 0, "objects": [thing]}).json()
    assert (saved["revision"], saved["by"], saved["objects"][0]["name"]) == (1, "labeller", "nut")
    late = opened.put(f"{SET}/labels", params=ONE, json={"revision": 0, "objects": []}, headers=headers("operator"))
    assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")
    assert late.json()["saved"]["objects"] == saved["objects"]
    listed = opened.get(f"{SET}/images").json()
    assert [(i["name"], i["labelled"], i["objects"]) for i in listed["images"]] == [
        ("2.png", False, 0),
        ("1.png", True, 1),
    ]
    assert {"name": "nut", "objects": 1, "known": False} in listed["classes"]
    assert {"name": "bolt", "objects": 0, "known": True} in listed["classes"]
    actions = opened.get("/api/workspaces/1/actions").json()
    assert [(a["who"], a["action"]) for a in actions] == [("labeller", "save labels")]
    assert (root / "labels" / "images.json").exists()


def test_drafts_are_found_and_bad_requests_refused(opened: TestClient) -> None:
    drafts = opened.post(f"{SET}/drafts", params=ONE).json()
    assert all(decode([d["rle"]]).shape == (1, 96, 128) and d["name"] in ("", "bolt", "gear") for d in drafts)
    good = encode(np.ones((1, 96, 128), dtype=bool))[0]
    for method, path, params, body, status, words in (
        ("POST", "outline", ONE, {"clicks": []}, 422, "no click"),
        ("POST", "outline", ONE, {"clicks": [{"x": 128, "y": 5, "foreground": True}]}, 422, "not on the image"),
        (
            "POST",
            "outline",
            ONE,
            {"clicks": [{"x": 1, "y": 5, "foreground": True}], "part": [0, 0, 200, 10]},
            422,
            "part",
        ),
        ("POST", "outline", ONE, {"clicks": [{"x": "NaN", "y": 5, "foreground": True}]}, 422, "x"),
        ("POST", "outline", {"name": "../ws/params.yaml"}, {"clicks": []}, 404, "no image"),
        ("POST", "outline", {"name": "/etc/passwd"}, {"clicks": []}, 404, "no image"),
        ("POST", "stroke", ONE, {"polygon": [1, 2, 3, 4, 5, 6, 7], "add": True}, 422, "odd number"),
        ("POST", "stroke", ONE, {"polygon": [500, 500, 510, 500, 510, 510], "add": True}, 422, "the area"),
        ("PUT", "labels", ONE, {"revision": 0, "objects": [{"name": "unknown", "rle": good}]}, 422, "stands for none"),
        ("PUT", "labels", ONE, {"revision": 0, "objects": [{"name": "a\nb", "rle": good}]}, 422, "name"),
        ("GET", "thumbnail", {"name": "none.png"}, None, 404, "no image"),
    ):
        answer = opened.request(method, f"{SET}/{path}", params=params, json=body)
        assert answer.status_code == status and words in answer.json()["error"]["message"], (path, body, answer.text)
    assert opened.get("/api/workspaces/2/sets").status_code == 404
    assert opened.get("/api/workspaces/1/sets/none/images").status_code == 404


def test_labels_are_exported_and_taught(opened: TestClient, root: Path) -> None:
    assert opened.get(f"{SET}/export").status_code == 422
    for name in ("1.png", "2.png"):
        shape = (96, 128) if name == "1.png" else (128, 96)
        mask = np.zeros((1, *shape), dtype=bool)
        mask[0, 10:30, 20:40] = True
        body = {"revision": 0, "objects": [{"name": "nut", "rle": encode(mask)[0]}]}
        assert opened.put(f"{SET}/labels", params={"name": name}, json=body).status_code == 200
    for format_ in ("coco", "yolo", "labelme"):
        archive = opened.get(f"{SET}/export", params={"format": format_})
        assert archive.headers["content-type"] == "application/zip"
        assert zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    operator = client([root], [root.parent / "photos" / "images"], "operator")
    session = {"name": "week1", "classes": ["nut"], "shots": 2}
    assert operator.post(f"{SET}/session", json=session | {"shots": 9}).status_code == 422
    assert operator.post(f"{SET}/session", json=session).json() == {"session": "week1"}
    added = load_params(root / "params.yaml").sessions["week1"]
    assert added.classes == ["nut"] and added.source is not None
    assert operator.post(f"{SET}/session", json=session).status_code == 422
    removed = operator.delete("/api/workspaces/1/sessions/week1")
    assert [s["name"] for s in removed.json()["sessions"]] == ["base"]
