"""The order in which to label, kept in memory: computed once at a time, in the background, as `samif suggest` does."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from flows.console import suggested
from samif.errors import ObjectMissing
from samif.masks.rle import encode
from tests.flows.console.conftest import client

SET = "/api/workspaces/1/sets/images"


@pytest.fixture
def opened(root: Path) -> TestClient:
    return client([root], [root.parent / "photos" / "images"], "labeller")


def listed(opened: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = opened.get(f"{SET}/images").json()
    return found


def ended(opened: TestClient) -> dict[str, Any]:
    """The list once the order is there."""
    deadline = time.monotonic() + 120
    while listed(opened)["order"] == "computing" and time.monotonic() < deadline:
        time.sleep(0.05)
    return listed(opened)


def test_the_order_of_suggest_is_kept_with_its_reasons(opened: TestClient, root: Path) -> None:
    before = listed(opened)
    assert before["order"] == "none" and [i["why"] for i in before["images"]] == [None, None]
    assert opened.post(f"{SET}/order").json()["order"] in ("computing", "done")
    found = ended(opened)
    assert (found["order"], found["error"]) == ("done", None)
    assert sorted(i["name"] for i in found["images"]) == ["1.png", "2.png"] and all(i["why"] for i in found["images"])
    assert listed(opened) == found, "it is kept"
    assert client([root], [root.parent / "photos" / "images"]).get(f"{SET}/images").json()["order"] == "none"


def test_images_follow_the_order_and_labelled_ones_come_last(
    opened: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, calls = threading.Event(), []

    def suggest(_segmenter: Any, _found: Any, images: Any, labelled: Any, *_: Any) -> Any:
        calls.append([path.name for path in labelled])
        assert go.wait(60)
        chosen = sorted(images, key=lambda image: image.name, reverse=True)
        return SimpleNamespace(
            images=[SimpleNamespace(image=i, choice=SimpleNamespace(why=f"reason of {i.name}")) for i in chosen]
        )

    monkeypatch.setattr(suggested, "suggest", suggest)
    monkeypatch.setattr(suggested, "load_segmenter", lambda *_, **__: None)
    for _ in range(3):
        assert opened.post(f"{SET}/order").json()["order"] == "computing"
    assert [i["name"] for i in listed(opened)["images"]] == ["1.png", "2.png"], (
        "the old order until the new one is there"
    )
    go.set()
    found = ended(opened)
    assert [(i["name"], i["why"]) for i in found["images"]] == [
        ("2.png", "reason of 2.png"),
        ("1.png", "reason of 1.png"),
    ]
    assert calls == [[]], "a second request meanwhile computes nothing"
    mask = encode(np.ones((1, 128, 96), dtype=bool))[0]
    body = {"revision": 0, "objects": [{"name": "nut", "rle": mask}]}
    assert opened.put(f"{SET}/labels", params={"name": "2.png"}, json=body).status_code == 200
    assert [(i["name"], i["why"]) for i in listed(opened)["images"]] == [("1.png", "reason of 1.png"), ("2.png", None)]
    opened.post(f"{SET}/order")
    ended(opened)
    assert calls == [[], ["2.png"]]


def test_a_failed_order_says_why_and_can_be_asked_for_again(
    opened: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ObjectMissing("the encoder is gone; run 'samif run'")

    with monkeypatch.context() as patched:
        patched.setattr(suggested, "load_segmenter", fail)
        opened.post(f"{SET}/order")
        found = ended(opened)
    assert found["order"] == "failed" and found["error"] == "the encoder is gone; run 'samif run'"
    assert len(found["images"]) == 2
    opened.post(f"{SET}/order")
    assert ended(opened)["order"] == "done"
