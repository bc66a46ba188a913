"""Events that start runs: signed by MLflow's own code, refused where wrong, queued once, done one at a time."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
from fastapi.testclient import TestClient
from mlflow.entities.webhook import Webhook, WebhookAction, WebhookEntity, WebhookEvent, WebhookStatus
from mlflow.webhooks import delivery as mlflow_delivery
from mlflow.webhooks.types import get_example_payload_for_event
from typer.testing import CliRunner

from flows.cli import app
from flows.http.errors import HttpError
from flows.http.signature import Delivery, find_secret, signed_headers
from flows.triggers.app import MOST_BYTES, Receiver, build_app
from flows.triggers.events import cause_of
from flows.triggers.queue import Queue
from flows.triggers.worker import work
from flows.workspace.init import init_workspace
from flows.workspace.lock import exclusive
from flows.workspace.run_request import RunRequest, request_of
from samif.errors import ConfigError, SamifError
from tests.flows.workspace.test_edit import coco

SECRET = "whsec_" + base64.b64encode(b"a secret of the tests....").decode()
WRONG = "whsec_" + base64.b64encode(b"another secret of the tests").decode()
NOW = 1_800_000_000
ROOT = Path(__file__).parents[3]
S3 = {
    "Records": [
        {
            "eventSource": "ceph:s3",
            "eventName": "ObjectCreated:Put",
            "eventTime": "2026-11-24T10:00:00Z",
            "s3": {"bucket": {"name": "line"}, "object": {"key": "new+part/1.png", "eTag": "e1", "sequencer": "01"}},
        }
    ]
}

PLACE = {"bucket": {"name": "b"}, "object": {"key": "k"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    return root


def clock_at(seconds: float) -> type[datetime]:
    """`datetime` with this Unix time as now."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(seconds, tz)

    return Clock


@dataclass
class Sender:
    """Sends to a receiver in this process; `now` is the receiver's clock."""

    root: Path
    now: float = NOW

    def send(
        self, content: Any = S3, id: str = "d1", at: int = NOW, secret: str = SECRET, **headers: str | bytes | None
    ) -> tuple[int, str]:
        """Status, and the state or the code of the refusal."""
        receiver = Receiver(self.root, SECRET, clock=lambda: self.now)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        signed: dict[str, str | bytes | None] = {**signed_headers(secret, id, body, at)}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in (signed | given).items() if value is not None}
        with mock.patch("standardwebhooks.webhooks.datetime", clock_at(self.now)):
            answer = TestClient(build_app(receiver)).post("/v1/events", content=body, headers=sent)
        if "error" in answer.json():
            assert set(answer.json()["error"]) == {"code", "message"} and "\n" not in answer.json()["error"]["message"]
            return answer.status_code, answer.json()["error"]["code"]
        return answer.status_code, answer.json()["state"]

    @property
    def queued(self) -> list[str | None]:
        return [item.request.cause for item in Queue(self.root).all()]


@pytest.fixture
def sender(root: Path) -> Sender:
    return Sender(root)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"webhook_signature": None}, (401, "unsigned")),
        ({"webhook_timestamp": None}, (401, "unsigned")),
        ({"webhook_id": None}, (401, "unsigned")),
        ({"secret": WRONG}, (401, "signature")),
        ({"webhook_id": "d2"}, (401, "signature")),
        ({"webhook_timestamp": str(NOW + 1)}, (401, "signature")),
        ({"webhook_signature": b"v1,\xe9"}, (401, "headers")),
        ({"webhook_signature": "v1"}, (401, "headers")),
        ({"webhook_timestamp": "noon"}, (401, "signature")),
        ({"x_mlflow_signature": "v1,AAAA"}, (401, "unsigned")),
        ({"at": NOW - 301}, (401, "signature")),
        ({"at": NOW + 301}, (401, "signature")),
        ({"id": "d" * 201}, (401, "headers")),
        ({"content": b"{"}, (400, "json")),
        ({"content": b"[" * 100_000}, (400, "json")),
        ({"content": [1]}, (400, "shape")),
        ({"content": {"Records": []}}, (400, "shape")),
        ({"content": b"x" * (MOST_BYTES + 1)}, (413, "too_many_bytes")),
    ],
)
def test_what_is_not_as_it_should_be_is_refused_and_queues_nothing(
    sender: Sender, changes: dict[str, Any], answer: tuple[int, str]
) -> None:
    assert sender.send(**changes) == answer
    assert sender.queued == []


def test_a_clock_may_differ_by_exactly_the_tolerance(sender: Sender) -> None:
    assert sender.send(at=NOW - 300) == (202, "queued")


def test_an_event_without_a_time_or_an_alias_that_returns_is_new_each_time(sender: Sender) -> None:
    """Taken for the one that a run has served, it would start nothing."""
    bare = {"Records": [{"eventName": "s3:ObjectRemoved:Delete", "s3": PLACE}]}
    alias = {"entity": "model_version_alias", "action": "created"}
    there = alias | {"timestamp": "t1", "data": {"name": "encoder", "version": "3", "alias": "champion"}}
    back = there | {"timestamp": "t2"}
    for number, (event, answer) in enumerate([(bare, "queued"), (bare, "queued"), (there, "queued"), (back, "queued")]):
        assert sender.send(event, id=f"d{number}", at=int(sender.now) + number)[1] == answer
        work(sender.root, lambda *_: "run")
    assert sender.send(back, id="again", at=int(sender.now))[1] == "known"


def test_a_delivery_counts_once_and_so_does_a_content(sender: Sender) -> None:
    assert sender.send() == (202, "queued")
    assert sender.send() == (401, "replayed")
    assert sender.send(id="d2") == (200, "known")
    sender.now += 299
    assert sender.send() == (401, "replayed")
    sender.now += 2
    assert sender.send() == (401, "signature")  # too old
    later = copy.deepcopy(S3)
    later["Records"][0]["s3"]["object"]["sequencer"] = "02"  # type: ignore[index]
    assert sender.send(later, id="d3", at=int(sender.now)) == (202, "queued")
    assert sender.queued == [
        "ObjectCreated s3://line/new part/1.png e1 01",
        "ObjectCreated s3://line/new part/1.png e1 02",
    ]


def test_twenty_deliveries_at_once_are_one_request(root: Path) -> None:
    # the senders patch the clock, too, each in its own thread: with the same one, and this one puts it right at the end
    with mock.patch("standardwebhooks.webhooks.datetime", clock_at(NOW)), ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda number: Sender(root).send(id=f"d{number}"), range(20)))
    assert sorted(answers) == [(200, "known")] * 19 + [(202, "queued")]
    assert len(Queue(root).all()) == 1


def test_a_workspace_that_cannot_be_read_takes_no_request(sender: Sender) -> None:
    (sender.root / "params.yaml").write_text("line: 1\n")
    assert sender.send() == (503, "workspace")


def registry(action: str, entity: str = "model_version", timestamp: str = "t1", **data: str) -> dict[str, Any]:
    return {"entity": entity, "action": action, "timestamp": timestamp, "data": data}


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (registry("created", name="encoder", version="3"), "model_version.created encoder/3"),
        (registry("created", "model_version_alias", name="encoder", version="3", alias="champion"),
         "model_version_alias.created encoder/3 @champion t1"),
        (registry("created", "model_version_alias", name="other-classifier", version="3", alias="champion"), None),
        (registry("deleted", "model_version_alias", name="encoder", alias="x"),
         "model_version_alias.deleted encoder @x t1"),
        (registry("created", name="ws-classifier", version="3"), None),
        (registry("created", name="ws-journal", version="9"), None),
        ({"Event": "s3:TestEvent", "Bucket": "line"}, None),
        ({"Records": [{"eventName": "s3:ObjectRemoved:Delete", "s3": PLACE}]}, "ObjectRemoved s3://b/k 7"),
        ({"Records": [{"eventName": "ObjectAccessed:Get", "s3": PLACE}]}, None),
    ],
)  # fmt: skip
def test_an_event_says_what_it_is_about(payload: Any, cause: str | None) -> None:
    assert cause_of(payload, 7) == cause


def test_only_named_prefixes_count_and_a_cause_is_one_line(root: Path) -> None:
    assert cause_of(S3, 7, ["s3://line/new part"]) is not None
    assert cause_of(S3, 7, ["s3://line/new"]) is None
    evil = copy.deepcopy(S3)
    evil["Records"][0]["s3"]["object"]["key"] = "a%0Ab" + "c" * 500  # type: ignore[index]
    first = cause_of(evil, 7)
    assert first is not None and "\n" not in first and len(first) < 330
    evil["Records"][0]["s3"]["object"]["key"] += "d"  # type: ignore[index]
    second = cause_of(evil, 7)
    assert second != first and request_of(root, "webhook", "", second).cause == second
    many = {"Records": [*S3["Records"], *evil["Records"]]}
    assert str(cause_of(many, 7)).startswith("2 objects, the first ObjectCreated s3://line/")
    with pytest.raises(HttpError, match="neither an S3 event nor an MLflow webhook"):
        cause_of({"Records": [{"eventName": "ObjectCreated:Put"}]}, 7)


@pytest.mark.parametrize("action", [WebhookAction.CREATED, WebhookAction.DELETED])
def test_the_payloads_that_mlflow_documents_are_understood(action: WebhookAction) -> None:
    event = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, action)
    payload = get_example_payload_for_event(event)
    text = cause_of(registry(action.value, event.entity.value, **payload), 7)
    assert text is not None and payload["name"] in text and payload["alias"] in text


# The queue and its worker


def ask(root: Path, *causes: str) -> None:
    for number, cause in enumerate(causes):
        delivery = Delivery(f"{cause}-{number}-{time.monotonic()}", NOW)
        assert Queue(root).accept(delivery, request_of(root, "webhook", cause, cause), NOW, 600) == "queued"


def states(root: Path) -> dict[str | None, tuple[str, str | None]]:
    return {item.request.cause: (item.state, item.run) for item in Queue(root).all()}


def test_one_run_serves_all_that_wait(root: Path) -> None:
    ran: list[RunRequest] = []

    def run(_: Path, request: RunRequest) -> str:
        ran.append(request)
        ask(root, f"during {len(ran)}") if len(ran) == 1 else None
        return f"run {len(ran)}"

    ask(root, "one", "two", "three")
    while work(root, run):
        assert len(ran) < 5
    assert [(r.cause, r.why, r.who) for r in ran] == [
        ("one", "one (and 2 more)", "webhook"),
        ("during 1", "during 1", "webhook"),
    ]
    assert states(root) == {
        "one": ("done", "run 1"), "two": ("done", "run 1"), "three": ("done", "run 1"), "during 1": ("done", "run 2"),
    }  # fmt: skip


def test_a_failed_run_may_be_asked_for_again_and_a_killed_one_comes_back(root: Path) -> None:
    def fail(_: Path, request: RunRequest) -> str:
        raise SamifError("the gear is blurred")

    def kill(_: Path, request: RunRequest) -> str:
        raise KeyboardInterrupt

    ask(root, "one")
    with pytest.raises(SamifError, match="blurred"):
        work(root, fail)
    assert states(root) == {"one": ("failed", "the gear is blurred")}
    assert not work(root, fail)
    ask(root, "one")
    with pytest.raises(KeyboardInterrupt):
        work(root, kill)
    assert states(root)["one"][0] == "waiting"
    Queue(root).take()
    assert not work(root, fail)
    assert Queue(root).recover() == 1
    assert work(root, lambda *_: "run 3") and states(root) == {"one": ("done", "run 3")}


def test_the_listing_says_what_became_of_each(root: Path, tmp_path: Path) -> None:
    import flows.cli.trigger  # noqa: F401

    ask(root, "one", "two")
    work(root, lambda *_: "run 1")
    ask(root, "three")
    listed = CliRunner().invoke(app, ["trigger", "list", "--json", "-w", str(root)])
    assert [(item["cause"], item["state"], item["run"]) for item in json.loads(listed.stdout)] == [
        ("one", "done", "run 1"),
        ("two", "done", "run 1"),
        ("three", "waiting", None),
    ]
    assert "three" in CliRunner().invoke(app, ["trigger", "list", "-w", str(root)]).stdout
    (tmp_path / "empty").mkdir()
    with pytest.raises(SamifError, match="is not a workspace"):
        Queue(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_busy_workspace_is_waited_for(root: Path) -> None:
    def run(root: Path, request: RunRequest) -> str:
        with exclusive(root):
            return "run 1"

    ask(root, "one")
    with exclusive(root):
        assert not work(root, run)
    assert states(root)["one"][0] == "waiting"
    assert work(root, run)


def test_an_internal_error_marks_the_request_as_failed(root: Path) -> None:
    """Left as waiting, it would start the same run every few seconds."""

    def fail(_: Path, request: RunRequest) -> str:
        raise ZeroDivisionError

    ask(root, "one")
    with pytest.raises(ZeroDivisionError):
        work(root, fail)
    assert states(root) == {"one": ("failed", "ZeroDivisionError")}


def test_a_request_of_another_version_is_named(root: Path) -> None:
    ask(root, "one")
    with sqlite3.connect(root / ".samif" / "triggers.db") as database:
        database.execute("""update requests set request = '{"schema": 1}'""")
    with pytest.raises(SamifError, match="triggers.db holds a request of another version of samif; finish it"):
        Queue(root).all()


def test_a_full_queue_says_so_and_forgets_the_delivery(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.triggers.queue.MAX_WAITING", 1)
    ask(sender.root, "one")
    assert sender.send() == (503, "full")
    work(sender.root, lambda *_: "run 1")
    assert sender.send() == (202, "queued")


@pytest.mark.parametrize("content", ["", "short", "a-plain-secret-of-more-than-24", "whsec_%%%", "whsec_c2hvcnQ="])
def test_a_secret_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("SAMIF_WEBHOOK_SECRET", content)
    with pytest.raises(ConfigError, match="SAMIF_WEBHOOK_SECRET holds no webhook secret .*; make one with: echo"):
        find_secret(None)
    (tmp_path / "secret").write_text(content + "\n")
    with pytest.raises(ConfigError, match="secret holds no webhook secret") as refused:
        find_secret(tmp_path / "secret")
    assert not content or content not in str(refused.value)
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert find_secret(tmp_path / "secret") == SECRET
    with pytest.raises(ConfigError, match="cannot be read"):
        find_secret(tmp_path / "gone")


# The whole, as a process


@pytest.fixture
def receiver(root: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`samif trigger serve` at an address, and its process; without annotations, so that a run ends soon."""
    (tmp_path / "data" / "annotations.json").unlink()
    command = [sys.executable, "-c", "from flows.cli import main; main()", "trigger", "serve", "--port", "0"]
    environment = os.environ | {"SAMIF_WEBHOOK_SECRET": SECRET, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "-w", str(root)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        found = re.search(r"listening at (\S+); Ctrl-C", said)
        assert found, said + process.stdout.read()
        yield found[1], process
    finally:
        process.kill()
        process.wait()


def test_mlflow_itself_asks_for_a_run_and_one_is_made(
    root: Path, receiver: tuple[str, subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, process = receiver
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    event = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)
    hook = Webhook("id", "name", url, [event], NOW, NOW, secret=SECRET, status=WebhookStatus.ACTIVE)
    session = mlflow_delivery._create_webhook_session()
    payload = get_example_payload_for_event(event)

    def deliver(hook: Webhook) -> int:
        return int(mlflow_delivery._send_webhook_request(hook, payload, event, session).status_code)

    assert deliver(hook) == 202
    wrong = Webhook("id", "name", url, [event], NOW, NOW, secret=WRONG, status=WebhookStatus.ACTIVE)
    assert deliver(wrong) == 401
    assert requests.post(url, json=S3, timeout=10).status_code == 401

    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    deadline = time.monotonic() + 60
    while not (told := [line for line in lines if "a run ended" in line]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert told and any("annotations.json" in line for line in lines), lines
    (path,) = (root / ".samif" / "runs").iterdir()
    record = json.loads(path.read_text())
    assert (record["who"], record["cause"]) == ("webhook", f"model_version.created {payload['name']}/1")
    assert record["outcome"] == "failed" and SECRET not in path.read_text() + "".join(lines)
    assert [item.state for item in Queue(root).all()] == ["failed"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    reader.join(10)
    assert lines[-1] == "ending\n"


def test_a_queue_that_cannot_be_used_shows_in_the_health_and_is_tried_again(
    root: Path, receiver: tuple[str, subprocess.Popen[str]]
) -> None:
    health = receiver[0].replace("/v1/events", "/healthz")
    database = root / ".samif" / "triggers.db"
    intact = database.read_bytes()

    def until(status: int) -> Any:
        deadline = time.monotonic() + 60
        while (answer := requests.get(health, timeout=10)).status_code != status:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)
        return answer.json()

    assert until(200) == {"status": "alive"}
    database.write_bytes(b"no database" * 1000)
    assert "triggers.db cannot be used" in until(503)["error"]
    database.write_bytes(intact)
    assert until(200) == {"status": "alive"}
