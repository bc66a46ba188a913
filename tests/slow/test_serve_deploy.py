"""`samif serve --write-config` and `serve deploy` on a Ray cluster that exists: replicas follow load and alias."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.ray_head import RayHead, ray_head
from tests.support.served_line import TOKEN, ServedLine, Service, png, until
from tests.support.services import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHead]:
    """A head whose processes have the service's token."""
    monkeypatch.setenv("SAMIF_SERVE_TOKEN", TOKEN)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ray_head() as head:
        yield head


def serve(head: RayHead, *words: str) -> None:
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token}
    command = [BIN / "serve", words[0], "--address", head.address, *words[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def replica_states(head: RayHead) -> list[str]:
    """States of the replicas, as Ray Serve tells them."""
    headers = {"Authorization": f"Bearer {head.token}"}
    answer = requests.get(f"{head.address}/api/serve/applications/", headers=headers, timeout=30)
    app: dict[str, Any] = answer.json()["applications"].get("samif", {})
    return [r["state"] for found in app.get("deployments", {}).values() for r in found["replicas"]]


def versions(service: Service) -> list[int]:
    return [view["champion"]["live"]["version"] for view in service.replicas]  # type: ignore[index]


def test_a_deployed_service_grows_with_its_load_and_new_replicas_serve_the_current_version(
    head: RayHead, tmp_path: Path
) -> None:
    line = ServedLine(tmp_path / "line", None)
    line.add("base", 2)
    line.add("s1", 4, after="base")
    line.alias("champion", 1)
    port, config = free_port(), tmp_path / "serve.yaml"
    words = ["serve", "demo@champion", "-w", str(line.root), "--port", str(port), "--replicas", "1-2"]
    command = [sys.executable, "-c", "from flows.cli import main; main()", *words, "--write-config", str(config)]
    subprocess.run(command, check=True, timeout=120)
    assert TOKEN not in config.read_text()
    service = Service(f"http://127.0.0.1:{port}", None, tmp_path / "none")  # type: ignore[arg-type]

    def answers() -> bool:
        try:
            return service.segment(png()).status_code == 200
        except requests.RequestException:
            return False

    serve(head, "deploy", str(config))
    until(answers, 180)
    assert requests.post(service.url + "/v1/segment", data=png(), timeout=60).status_code == 401
    assert versions(service) == [1]

    stop, seen = threading.Event(), list[tuple[int, int]]()

    def ask() -> None:
        while not stop.is_set():
            answered = service.segment(png())
            seen.append((answered.status_code, answered.json().get("model", {}).get("version", 0)))

    clients = [threading.Thread(target=ask) for _ in range(5)]  # more than two requests per replica
    for client in clients:
        client.start()
    try:
        until(lambda: len(replica_states(head)) == 2, 180)
        line.alias("champion", 2)  # while the second one starts
        until(lambda: versions(service) == [2, 2], 180)
        changed = len(seen) + len(clients)  # those in work may be of the version before
        until(lambda: len(seen) > changed + 40)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen[changed:]} == {2} and seen[0] == (200, 1)
    line.alias("champion", 1)
    until(lambda: versions(service) == [1, 1])
