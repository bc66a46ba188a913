"""`samif serve` that starts while its MLflow server is down, and what it does when the server is back."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from infra.services.daemon import Launcher
from infra.services.mlflow import MlflowServer
from tests.support.served_line import ServedLine, png, service, slot, until
from tests.support.services import free_port

pytestmark = pytest.mark.slow


@dataclass
class Site:
    """A line with two versions, the first of them live, and the MLflow server that holds them."""

    folder: Path
    server: MlflowServer
    line: ServedLine

    @contextmanager
    def registry(self) -> Iterator[None]:
        launcher = Launcher(uuid.uuid4().hex, self.folder, die_with_starter=True)
        daemon = self.server.start(launcher)
        try:
            self.server.wait_until_ready(launcher, daemon)
            yield
        finally:
            self.server.stop(daemon)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    backend = f"sqlite:///{tmp_path}/mlflow.db"
    server = MlflowServer(tmp_path / "mlflow", free_port(), backend, str(tmp_path / "artifacts"))
    site = Site(tmp_path, server, ServedLine(tmp_path / "line", None, server.url))
    with site.registry():
        site.line.add("base", 2)
        site.line.add("s1", 4, after="base")
        site.line.alias("champion", 1)
    return site


def test_without_the_registry_it_serves_what_it_served_last(site: Site) -> None:
    with site.registry(), service(site.line, "demo@champion") as served:
        before = served.segment(png()).json()["instances"]
    assert before
    with service(site.line, "demo@champion") as served:
        for killed in (True, False):
            answer = served.segment(png()).json()
            assert (answer["model"]["version"], answer["instances"]) == (1, before)
            seen = slot(served)
            assert "demo-classifier/1 is served because demo@champion named it" in seen["unconfirmed"]
            assert seen["since"] is None and "does not answer" in seen["registry"]
            if killed:
                (pid,) = [view["pid"] for view in served.replicas]
                os.kill(int(str(pid)), signal.SIGKILL)
                until(lambda pid=pid: [v["pid"] for v in served.replicas] not in ([pid], []), 120)
        assert "whether it still does is not known until the registry answers" in served.log.read_text()
        with site.registry():
            until(lambda: slot(served)["unconfirmed"] is None)
            assert slot(served)["live"]["version"] == 1 and slot(served)["since"] is not None
            site.line.alias("champion", 2)
            until(lambda: served.segment(png()).json()["model"]["version"] == 2)
            until(lambda: "demo@champion is demo-classifier/2 since" in served.log.read_text())
        assert served.segment(png()).json()["model"]["version"] == 2
    with service(site.line, "demo@champion") as served:
        assert served.segment(png()).json()["model"]["version"] == 2


@pytest.mark.parametrize("left", ["nothing", "a damaged classifier"])
def test_where_nothing_can_be_served_it_is_unready_until_the_registry_is_back(site: Site, left: str) -> None:
    if left == "nothing":
        shutil.rmtree(site.line.root / ".samif" / "served", ignore_errors=True)
    else:
        with site.registry(), service(site.line, "demo@champion") as served:
            assert served.segment(png()).status_code == 200
        for path in (site.line.root / ".samif" / "models").glob("*/classifier.safetensors"):
            path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with service(site.line, "demo@champion") as served:
        assert served.segment(png()).status_code == 503
        assert requests.get(served.url + "/readyz", timeout=30).status_code == 503
        assert "nothing is served meanwhile: no version of demo@champion" in slot(served)["registry"]
        said = [line for line in served.log.read_text().splitlines() if "is not served yet, but tried again" in line]
        assert len(said) == 1 and "demo@champion is not served yet" in said[0] and "Traceback" not in said[0]
        with site.registry():
            until(lambda: served.segment(png()).status_code == 200)
            assert served.segment(png()).json()["model"]["version"] == 1
