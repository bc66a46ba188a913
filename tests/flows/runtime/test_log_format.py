"""Logs as JSON: every line on standard error is an object, whatever wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from io import StringIO
from typing import Any

import pytest

from flows.http.listening import server_options
from flows.runtime import progress
from tests.flows.runtime.test_logs import CODE

MORE = """
import uvicorn, threading
from flows.http.listening import listening, server_options

@app.command()
def work() -> None:
    from flows.runtime.log_format import add_context
    from flows.runtime.progress import say, track
    add_context(stage="session@s1")
    say('a "sentence" with ü\\nand a second line')
    with track(2, "images", "embed") as tracker:
        tracker.note("slow")
        tracker.advance(2)
    logging.getLogger("flows.work").warning("of %s", {"a": 1})

@app.command()
def refuse() -> None:
    from samif.errors import DataError
    raise DataError("it is not there; look again")

@app.command()
def listen() -> None:
    import httpx
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(answer, lifespan="off", **server_options()))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/thing")
        server.should_exit = True
        thread.join()

sys.argv"""


def run(*words: str, options: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAMIF_LOG")} | variables
    code = CODE.replace("\nsys.argv", MORE.replace("\\\\n", "\\n"), 1)
    return subprocess.run(
        [sys.executable, "-c", code, *options, *words], env=environment, capture_output=True, text=True
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= item.keys() for item in found)
    assert all(datetime.fromisoformat(item["time"]).tzinfo is not None for item in found)
    return found


@pytest.mark.parametrize(
    ("options", "variables"),
    [(("--log-format", "json"), {}), ((), {"SAMIF_LOG_FORMAT": "json"})],
)
def test_records_sentences_and_progress_are_objects(options: tuple[str, ...], variables: dict[str, str]) -> None:
    done = run("work", options=options, SAMIF_RUN_ID="20260101T000000Z", **variables)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found = lines(done)
    assert [(item["logger"], item["level"]) for item in found] == [
        ("samif", "INFO"), *[("samif.progress", "INFO")] * 3, ("flows.work", "WARNING")
    ]  # fmt: skip
    assert {(item["run"], item["stage"]) for item in found} == {("20260101T000000Z", "session@s1")}
    assert found[0]["message"] == 'a "sentence" with ü\nand a second line' and found[-1]["message"] == "of {'a': 1}"
    assert found[2]["message"] == "embed: slow"


def test_tracebacks_and_refusals_are_objects() -> None:
    found = lines(run("talk", SAMIF_LOG_FORMAT="json", SAMIF_LOG="info"))
    assert [item["message"] for item in found] == ["a retry", "a problem"]
    assert found[0]["exception"].endswith("ValueError: swallowed\n") and "exception" not in found[1]
    refused = run("refuse", options=("--log-format", "json"))
    assert refused.returncode == 1 and [i["message"] for i in lines(refused)] == ["samif: it is not there; look again"]


def test_requests_of_a_service_are_objects_in_json_only() -> None:
    served = run("listen", SAMIF_LOG_FORMAT="json")
    (access,) = [item for item in lines(served) if item["logger"] == "uvicorn.access"]
    assert "GET /v1/thing" in access["message"] and "204" in access["message"]
    assert run("listen").stderr == ""


@pytest.mark.parametrize("value", ["xml", "JSON", "1"])
def test_another_format_is_refused_in_one_sentence(value: str) -> None:
    done = run("work", SAMIF_LOG_FORMAT=value)
    assert (done.returncode, done.stderr) == (1, f"samif: SAMIF_LOG_FORMAT is '{value}'; set it to text or json\n")
    assert run("work", options=("--log-format", value)).returncode == 2


def test_text_stays_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMIF_LOG_FORMAT", raising=False)
    out = StringIO()
    with progress.track(1, "images", "embed", out) as tracker:
        tracker.advance()
    assert out.getvalue().startswith("embed: 0/1 images\n") and server_options()["access_log"] is False
    done = run("work", SAMIF_LOG_FORMAT="")
    assert done.returncode == 0 and done.stderr.startswith('a "sentence" with ü\n')
