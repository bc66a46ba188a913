"""The review over the API: errors, disagreements and alarms, decisions about them, and sessions that learn of these."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from flows.artifacts.disagreements import RECORD, Difference, DisagreementRecord, Side
from flows.artifacts.kept_answers import Instance
from flows.error_analysis.collect import Errors, collect
from flows.watch.history import History
from flows.watch.records import Alarm, Cleared
from flows.watch.watcher import watch_folder
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.evaluate.errors import CAUSES, ErrorCase
from samif.masks.rle import Rle, encode
from tests.flows.console.conftest import client, headers

AT = "/api/workspaces/1"
SAMPLE = "20261101T101112345678-7"
ALARM = "alarm_0123456789abcdef"


def mask(top: int, left: int, side: int = 22, size: tuple[int, int] = (96, 128)) -> Rle:
    whole = np.zeros((1, *size), dtype=bool)
    whole[0, top : top + side, left : left + side] = True
    return encode(whole)[0]


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[ErrorCase]:
    """One error of every cause on the first validation image, in the place of those that the line happens to make."""
    cases: list[ErrorCase] = []

    def handmade(layout: Layout, params: Params, name: str | None) -> Errors:
        found = collect(layout, params, name)
        image = found.dataset.images[0]
        named = {"unknown object": ("bolt", "hook"), "background": ("gear", None), "missed mask": (None, "gear")}
        cases[:] = [
            ErrorCase(
                f"e{n}", cause, image, *named.get(cause, ("bolt", "gear")), mask(5, 4 * n), 0.75 if n < 6 else None
            )
            for n, cause in enumerate(CAUSES)
        ]
        return Errors(found.name, found.known, found.dataset, tuple(cases), found.images, found.page)

    monkeypatch.setattr("flows.console.review.collect", handmade)
    return cases


def write_sample(
    folder: Path, image: Path, champion: str = "demo-classifier/1", size: tuple[int, int] = (96, 128)
) -> None:
    """Three disagreements: renamed, only of the champion, only of the challenger."""
    folder.mkdir(parents=True)
    shutil.copy(image, folder / "image.png")

    def found(label: str, left: int) -> Instance:
        code = mask(10, left, size=size)
        values = {"segmentation": code, "bbox": [left, 10, 22, 22], "label": label, "score": 0.5}
        return Instance.model_validate(values | {"unknown": label == "unknown"})

    def at(left: float) -> tuple[float, float, float, float]:
        return (left, 10.0, 22.0, 22.0)

    DisagreementRecord(
        champion=Side(version=champion, instances=(found("bolt", 4), found("gear", 30))),
        challenger=Side(version="demo-classifier/2", instances=(found("hook", 4), found("unknown", 60))),
        disagreements=(
            Difference(kind="renamed", box=at(4), champion="bolt", challenger="hook"),
            Difference(kind="only_champion", box=at(30), champion="gear", challenger=None),
            Difference(kind="only_challenger", box=at(60), champion=None, challenger="unknown"),
        ),
    ).save(folder / RECORD)


def write_alarms(root: Path, camera: Path, examples: Sequence[str]) -> None:
    """An alarm with images, one without, and one that is over."""
    now = datetime.now(UTC)
    facts = {"time": now, "model": "demo-classifier/1", "reference": "r", "images": 9, "sentence": "too many unknown"}
    history = History(watch_folder(Layout(root)))
    history.path.parent.mkdir(parents=True)
    stream = facts | {"source": "stream", "side": "high", "folder": str(camera), "level": 3.24, "limit": 1.5}
    history.append(
        [
            Alarm.model_validate(stream | {"id": ALARM, "subject": "unknown", "examples": tuple(examples)}),
            Alarm.model_validate(stream | {"id": "alarm_over", "subject": "objects", "examples": tuple(examples[:1])}),
            Alarm.model_validate(
                facts | {"id": "alarm_replay", "source": "replay", "side": "differs", "subject": "replay"}
            ),
            Cleared(time=now, alarm="alarm_over", sentence="as usual"),
        ]
    )  # fmt: skip


@pytest.fixture
def full(root: Path, errors: list[ErrorCase]) -> Path:
    """A workspace with items of every kind."""
    photos = root.parent / "photos" / "images"
    write_sample(root.parent / "shadow" / SAMPLE, photos / "1.png")
    write_sample(
        root.parent / "shadow" / "other" / SAMPLE.replace("1-7", "2-8"), photos / "1.png", "other-classifier/1"
    )
    camera = root.parent / "camera"
    camera.mkdir()
    shutil.copy(photos / "1.png", camera / "a.png")
    write_alarms(root, camera, ["a.png", "gone.png", "../photos/images/1.png"])
    return root


def opened(root: Path, role: str = "labeller") -> TestClient:
    shadow = root.parent / "shadow"
    return client([root], [root.parent / "photos" / "images"], role, shadow if shadow.exists() else None)


def queue(console: TestClient, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = console.get(f"{AT}/review", params=query).json()
    return found


def decide(console: TestClient, item: str, decision: str, role: str = "labeller") -> Any:
    return console.post(f"{AT}/review/{item}/decision", json={"decision": decision}, headers=headers(role))


def objects_of(root: Path, name: str) -> list[str]:
    """Class names of the objects of a label set, as they are on the disk."""
    path = root / "labels" / f"{name}.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    return sorted(names[a["category_id"]] for a in content["annotations"])


def test_the_errors_of_a_run_are_in_the_queue(root: Path) -> None:
    found = queue(opened(root))
    assert found["items"] and found["problems"] == [] and found["waiting"] == len(found["items"])
    assert {item["kind"] for item in found["items"]} == {"error"}
    crop = opened(root).get(f"{AT}/review/{found['items'][0]['id']}/crop")
    with Image.open(io.BytesIO(crop.content)) as image:
        assert image.format == "JPEG" and max(image.size) == 240
    for address in ("error.base.0000", "error.none.1", "nothing", "alarm.x.0", "disagreement.x.0"):
        assert opened(root).get(f"{AT}/review/{address}/crop").status_code == 404
    assert "there is no session 'none'" in queue(opened(root), session="none")["problems"][0]


def test_a_workspace_that_did_not_run_says_so(root: Path) -> None:
    (root / "artifacts" / "evaluations" / "base" / "evaluation.json").unlink()
    assert "evaluation.json" in queue(opened(root))["problems"][0]
    assert opened(root).get(f"{AT}/point").json()["naming"] is None


def test_every_kind_is_listed_with_image_reason_and_decisions(full: Path) -> None:
    console = opened(full)
    items = {item["id"]: item for item in queue(console)["items"]}
    assert [item["kind"] for item in items.values()] == ["alarm"] * 3 + ["disagreement"] * 3 + ["error"] * 8
    every, known = ["accept", "fix", "never"], ["fix", "never"]
    alarm = items[f"alarm.{ALARM}.0"]
    assert (alarm["sentence"], alarm["image"], alarm["over"]) == ("too many unknown", "a.png", False)
    assert (alarm["cause"], alarm["side"], alarm["level"], alarm["limit"]) == ("unknown", "high", 3.24, 1.5)
    assert alarm["decisions"] == every and items["alarm.alarm_over.0"]["over"]
    assert (items["alarm.alarm_replay.0"]["crop"], items["alarm.alarm_replay.0"]["decisions"]) == (False, ["accept"])
    differ = [items[f"disagreement.{SAMPLE}.{n}"] for n in range(3)]
    assert [(d["name"], d["label"], d["accepted"]) for d in differ] == [
        ("bolt", "hook", "hook"),
        ("gear", None, "gear"),
        (None, "unknown", None),
    ]
    assert [d["decisions"] for d in differ] == [every, every, known] and differ[0]["at"] == "2026-11-01T10:11:12+00:00"
    of = {item["cause"]: item["decisions"] for item in items.values() if item["kind"] == "error"}
    assert of.pop("unknown object") == every
    assert of.pop("background") == of.pop("part of an object") == known
    assert all(decisions == ["fix"] for decisions in of.values()) and len(of) == 5
    for item in items.values():
        answer = console.get(f"{AT}/review/{item['id']}/crop")
        assert answer.status_code == (200 if item["crop"] else 404), item["id"]


@pytest.mark.parametrize(
    ("item", "decision", "review", "never"),
    [
        ("error.base.e0", "accept", ["hook"], []),
        ("error.base.e0", "never", [], ["bolt"]),
        ("error.base.e1", "never", [], ["gear"]),
        (f"disagreement.{SAMPLE}.0", "accept", ["hook"], []),
        (f"disagreement.{SAMPLE}.0", "never", [], ["bolt"]),
        (f"disagreement.{SAMPLE}.1", "accept", ["gear"], []),
        (f"disagreement.{SAMPLE}.2", "never", [], ["object"]),
        (f"alarm.{ALARM}.0", "accept", [], []),
        ("alarm.alarm_replay.0", "accept", [], []),
    ],
)
def test_a_decision_brings_the_object_to_its_set(
    full: Path, item: str, decision: str, review: list[str], never: list[str]
) -> None:
    console, before = opened(full), queue(opened(full))["waiting"]
    assert decide(console, item, decision).status_code == 200
    assert (objects_of(full, "review"), objects_of(full, "never-name")) == (review, never)
    found = queue(console)
    assert found["waiting"] == before - 1 and item not in {i["id"] for i in found["items"]}
    assert (found["drafts"]["shots"]["objects"], found["drafts"]["background"]["objects"]) == (len(review), len(never))
    (action,) = console.get(f"{AT}/actions").json()
    assert (action["action"], action["item"], action["decision"]) == ("review", item, decision)
    again = decide(console, item, decision, "operator")
    assert again.status_code == 409 and "labeller decided about this already" in again.json()["error"]["message"]
    (done,) = queue(console, decided=True)["items"]
    assert (done["id"], done["decided"]["decision"], done["decided"]["who"]) == (item, decision, "labeller")
    assert console.delete(f"{AT}/review/{item}/decision").status_code == 200
    assert queue(console)["waiting"] == before


@pytest.mark.parametrize("item", ["error.base.e7", f"disagreement.{SAMPLE}.1", f"alarm.{ALARM}.0"])
def test_an_item_is_fixed_in_the_editor(full: Path, item: str) -> None:
    console = opened(full)
    place = decide(console, item, "fix").json()
    address = f"{AT}/sets/{place['set']}"
    assert (
        place["set"] == "review"
        and console.get(f"{address}/labels", params={"name": place["image"]}).json()["revision"] == 0
    )
    draft = console.get(f"{AT}/review/{item}/draft").json()
    if item.startswith("alarm"):
        assert draft is None  # the editor finds everything in the image
        return
    assert draft["name"] == "gear" and draft["rings"]
    body = {"revision": 0, "objects": [{"name": "wing", "rle": draft["rle"]}]}
    assert console.put(f"{address}/labels", params={"name": place["image"]}, json=body).status_code == 200
    (learnt,) = queue(console)["drafts"]["shots"]["classes"]
    assert learnt == {"name": "wing", "objects": 1, "known": False}
    never = {"rle": draft["rle"], "name": "gear"}
    assert console.post(f"{address}/never", params={"name": place["image"]}, json=never).status_code == 200
    assert objects_of(full, "never-name") == ["gear"]
    assert [s["id"] for s in console.get(f"{AT}/sets").json()] == ["images", "review", "never-name"]


def test_never_name_an_alarm_takes_everything_that_is_named_in_its_image(full: Path) -> None:
    console = opened(full)
    answer = decide(console, f"alarm.{ALARM}.0", "never")
    named = objects_of(full, "never-name")
    if answer.status_code == 200:
        assert answer.json()["objects"] == len(named) > 0 and set(named) <= {"bolt", "gear"}
    else:
        assert answer.status_code == 409 and "nothing is named" in answer.json()["error"]["message"] and named == []
        assert f"alarm.{ALARM}.0" in {i["id"] for i in queue(console)["items"]}


def test_what_cannot_be_decided_is_refused_and_waits(full: Path) -> None:
    console, before = opened(full), queue(opened(full))["waiting"]
    for item, decision, status, words in (
        ("error.base.e2", "accept", 422, "cannot be decided as 'accept'"),
        ("error.base.e2", "never", 422, "choose from fix"),
        ("alarm.alarm_replay.0", "fix", 422, "choose from accept"),
        ("error.base.e0", "keep", 422, "decision"),
        ("error.base.zzzz", "accept", 404, "no longer in the queue"),
    ):
        answer = decide(console, item, decision)
        assert answer.status_code == status and words in answer.json()["error"]["message"], answer.text
    (full.parent / "shadow" / SAMPLE / "image.png").unlink()
    gone = decide(console, f"disagreement.{SAMPLE}.0", "accept")
    assert gone.status_code == 404 and "is gone" in gone.json()["error"]["message"]
    assert queue(console)["waiting"] == before and objects_of(full, "review") == []


def test_a_damaged_source_does_not_hide_the_others(full: Path) -> None:
    (full.parent / "shadow" / SAMPLE / RECORD).write_text("{}")
    found = queue(opened(full))
    assert {item["kind"] for item in found["items"]} == {"alarm", "error"}
    assert "disagreement.json" in found["problems"][0]
    History(watch_folder(Layout(full))).path.write_text("{}\n")
    assert len(queue(opened(full))["problems"]) == 2


def test_sessions_learn_what_was_decided_and_take_it_out_of_the_sets(full: Path) -> None:
    console, operator = opened(full), opened(full, "operator")
    empty = operator.post(f"{AT}/review/session", json={"name": "week1", "use": "shots", "classes": ["hook"]})
    assert empty.status_code == 422 and "no object to learn from" in empty.json()["error"]["message"]
    for item, decision in (
        ("error.base.e0", "accept"),
        (f"disagreement.{SAMPLE}.0", "accept"),
        (f"disagreement.{SAMPLE}.1", "accept"),
        ("error.base.e1", "never"),
    ):
        assert decide(console, item, decision).status_code == 200
    assert objects_of(full, "review") == ["gear", "hook", "hook"]
    body = {"name": "week1", "use": "shots", "classes": ["gear"]}
    refused = operator.post(f"{AT}/review/session", json=body)
    assert refused.status_code == 422 and "base class" in refused.json()["error"]["message"]
    assert not (full / "accepted" / "week1").exists() and len(objects_of(full, "review")) == 3
    done = operator.post(f"{AT}/review/session", json=body | {"classes": ["hook"]}).json()
    assert (done["session"], done["objects"], done["classes"], done["shots"]) == ("week1", 2, ["hook"], 2)
    assert objects_of(full, "review") == ["gear"], "what was not learnt stays"
    done = operator.post(f"{AT}/review/session", json={"name": "glare", "use": "background"}).json()
    assert done["objects"] == 1 and objects_of(full, "never-name") == []
    sessions = load_params(full / "params.yaml").sessions
    assert sessions["week1"].classes == ["hook"] and sessions["week1"].shots == 2 and sessions["glare"].background
    source = sessions["glare"].source
    assert source is not None and len(list((full / source.images).iterdir())) == 1
    assert not list((full / "labels" / "images" / "never-name").iterdir())
    again = operator.post(f"{AT}/review/session", json={"name": "glare", "use": "background"})
    assert again.status_code == 422
    actions = [(a["action"], a.get("session")) for a in operator.get(f"{AT}/actions").json()]
    assert actions[:2] == [("add session", "glare"), ("add session", "week1")]
