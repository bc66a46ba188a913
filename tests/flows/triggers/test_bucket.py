"""A real bucket's notification, through the relay that signs it, to a queued request."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
import uvicorn

from flows.triggers.app import Receiver, build_app
from flows.triggers.queue import Queue
from flows.workspace.init import init_workspace
from infra.triggers.bucket_relay import handler
from tests.flows.triggers.test_triggers import S3, SECRET, WRONG
from tests.flows.workspace.test_edit import coco
from tests.support.services import Ceph, free_port

RELAY = Path(__file__).parents[3] / "infra" / "triggers" / "bucket_relay.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    return root


@pytest.fixture
def relay(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a relay, as a process of its own, to a receiver of the workspace."""
    port, behind = free_port(), free_port()
    monkeypatch.setenv("SAMIF_TRIGGER_URL", f"http://127.0.0.1:{behind}/v1/events")
    monkeypatch.setenv("SAMIF_WEBHOOK_SECRET", SECRET)
    app = build_app(Receiver(root, SECRET))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=behind, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    process = subprocess.Popen([sys.executable, str(RELAY), "127.0.0.1", str(port)])
    try:
        for _ in range(200):
            try:
                requests.get(f"http://127.0.0.1:{port}", timeout=5)
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        server.should_exit = True
        thread.join()


def test_an_image_put_into_a_real_bucket_queues_one_request(
    root: Path, relay: str, bucket: str, s3_server: Ceph
) -> None:
    session = boto3.session.Session()
    topics = session.client("sns", endpoint_url=s3_server.url)
    topic = topics.create_topic(Name=f"topic-{bucket}", Attributes={"push-endpoint": relay})["TopicArn"]
    store = session.client("s3", endpoint_url=s3_server.url)
    told = {"Id": "new", "TopicArn": topic, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    store.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"TopicConfigurations": [told]}
    )
    store.put_object(Bucket=bucket, Key="new part/1.png", Body=b"an image")
    deadline = time.monotonic() + 30
    while not (queued := Queue(root).all()) and time.monotonic() < deadline:
        time.sleep(0.1)
    (item,) = queued
    assert item.state == "waiting" and item.request.who == "webhook"
    assert str(item.request.cause).startswith(f"ObjectCreated s3://{bucket}/new part/1.png ")
    store.delete_object(Bucket=bucket, Key="new part/1.png")
    while len(queued) < 2 and time.monotonic() < deadline:
        queued = Queue(root).all()
        time.sleep(0.1)
    assert str(queued[1].request.cause).startswith(f"ObjectRemoved s3://{bucket}/new part/1.png ")


def test_the_relay_passes_a_refusal_on(root: Path, relay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps(S3)
    assert requests.post(relay, data=body, timeout=10).status_code == 200
    assert requests.post(relay, data=b"no event", timeout=10).status_code == 502
    assert requests.post(relay, data=bytes(1_000_001), timeout=10).status_code == 413
    assert handler(S3) == {"statusCode": 200}
    monkeypatch.setenv("SAMIF_WEBHOOK_SECRET", WRONG)
    with pytest.raises(RuntimeError, match="the receiver answers 401"):
        handler(S3)
    assert len(Queue(root).all()) == 1
