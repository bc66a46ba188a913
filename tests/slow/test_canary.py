"""`samif serve --canary` as its users meet it: real HTTP, two replicas, the registry on SQLite, restarts."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
import requests

import flows.cli.promotion  # noqa: F401  (its commands)
from samif.watch.canary import ENOUGH
from tests.support.canary_line import CanaryLine, canaries, image, wait_for
from tests.support.console import inside
from tests.support.served_line import Service, number, until

pytestmark = pytest.mark.slow


class Stream:
    """Two clients that ask without a pause; status and version of every answer."""

    def __init__(self, served: Service) -> None:
        self.answers: list[tuple[int, int]] = []
        self._served, self._stop = served, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(first,)) for first in (0, 10**6)]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        while not self._stop.is_set():
            seed += 1
            answered = self._served.segment(image(seed))
            self.answers.append((answered.status_code, answered.json().get("model", {}).get("version", 0)))

    @property
    def of(self) -> Counter[tuple[int, int]]:
        return Counter(self.answers)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> CanaryLine:
    from flows.registry.registry import Registry

    root = tmp_path_factory.mktemp("migrated")
    _ = Registry(None, root)._store.client
    kinds = ("names wrongly", "raises errors", "equal")
    return CanaryLine(tmp_path_factory.mktemp("canary") / "line", root / ".samif" / "mlflow.db", kinds)


def test_bad_canaries_are_rolled_back_and_a_good_one_is_promoted(line: CanaryLine) -> None:
    bad, failing, good = line.numbers.values()
    root = line.root
    inside(root, "registry", "repair", "demo")  # the journal adopts what the alias names
    line.alias("challenger", bad)
    with line.serving("--replicas", "2", "--percent", "40") as served:
        wait_for(served, "running", bad)
        with Stream(served) as stream:
            wait_for(served, "rolled back", bad)
            asked = len(stream.answers)
            until(lambda: len(stream.answers) > asked + 60)
        assert stream.of.keys() == {(200, 1), (200, bad)}
        # what was answered before all replicas had seen the stop
        assert stream.of[200, bad] <= ENOUGH and (200, bad) not in stream.answers[asked + 4 :]
        assert "names" in canaries(served)[0]["why"] and len(canaries(served)) == 2
        assert line.registry.aliases("demo") == {"champion": 1}
        assert number(served, "samif_canary_running") == 0
        assert number(served, f'samif_answers_total{{model="demo-classifier",version="{bad}"}}') == stream.of[200, bad]
        until(lambda: f"demo-classifier/{bad} is rolled back: " in served.log.read_text())

        line.alias("challenger", failing)
        wait_for(served, "running", failing)
        with Stream(served) as stream:
            wait_for(served, "rolled back", failing)
        assert {status for status, _ in stream.answers} == {200}
        assert number(served, 'samif_canary_total{outcome="failed"}') >= 3
    history = inside(root, "registry", "history", "demo").out
    assert f"canary {bad} was rolled back: " in history and f"canary {failing} was rolled back: errors: " in history
    kinds = [entry["version"] for entry in inside(root, "registry", "history", "demo", "--json").json["canaries"]]
    assert kinds == [bad, failing]

    line.alias("challenger", bad)  # by hand, past the journal
    with line.serving("--percent", "40") as served:
        until(lambda: "it is not started again without --retry-canary" in str(canaries(served)[0]["why"]))
        assert {served.segment(image(seed)).json()["model"]["version"] for seed in range(20)} == {1}
    line.alias("challenger", None)
    with line.serving("--percent", "40", "--retry-canary") as served:
        assert f"demo-classifier/{failing} may be a canary again" in served.log.read_text()
        wait_for(served, "running", failing)

        line.alias("challenger", good)
        wait_for(served, "running", good)
        refused = inside(root, "registry", "promote", f"demo/{good}", "--from-canary")
        assert refused.code == 1 and f"{ENOUGH} are needed" in refused.err
        headers = {"X-Samif-Part": "part 7"}
        token = served.ask("GET", "/healthz").request.headers["Authorization"]
        of_part = {
            requests.post(
                served.url + "/v1/segment",
                data=image(seed),
                headers=headers | {"Authorization": token, "Content-Type": "image/png"},
                timeout=60,
            ).json()["model"]["version"]
            for seed in range(12)
        }
        assert len(of_part) == 1
        with Stream(served) as stream:
            until(lambda: canaries(served)[0]["requests"] > ENOUGH + 5, 300)
        assert stream.of.keys() == {(200, 1), (200, good)}
        time.sleep(2.5)  # the evidence reaches the registry once a second
        assert f"version {good}: canary: " in inside(root, "registry", "list").out
