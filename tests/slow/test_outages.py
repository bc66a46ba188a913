"""Outages: PostgreSQL, S3 or MLflow hangs or is down for 30 s during a run, or MLflow does not come back.

Takes a quarter of an hour. SAMIF_RECORD=1 also writes the table to benchmarks/OUTAGES.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import requests
from ruamel.yaml import YAML

from flows.registry.registry import Registry
from flows.registry.verification import complaints, verify
from flows.workspace.layout import Layout
from flows.workspace.params_edit import new_text
from infra.services.daemon import find_tagged, kill_tagged
from infra.services.stack import BUCKET, Stack
from samif.config import EncoderParams, SessionParams, load_params
from samif.dataset.draw.parts import BASE_PARTS
from samif.io.hashing import file_sha256
from tests.support.services import skip_without_ceph, skip_without_postgres, ten_free_ports

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parents[2] / "benchmarks" / "OUTAGES.md"
COMMAND = "SAMIF_RECORD=1 python -m pytest -m slow tests/slow/test_outages.py"
OUTAGE_SECONDS = 30.0
RUN_SECONDS = 3600.0
"""For one run: no measurement, and so long that other work on the machine does not matter."""
SAMIF = Path(sys.executable).with_name("samif")
DAEMONS = {"PostgreSQL": "postgres", "S3": "ceph-rgw", "MLflow": "mlflow"}
SESSIONS = {
    "s1": SessionParams(after="base", classes=["wing_nut"], shots=2),
    "s2": SessionParams(after="s1", classes=["hook"], shots=2),
}
PARAMS: dict[str, dict[str, Any]] = {
    "pretrain_decoder": {"steps": 2, "images_per_step": 2},
    "propose": {"points": 24},
    "embed": {"shard_images": 4},
}
VERSIONS = {"decoder": 1, "classifiers": {"base": 1, "s1": 2, "s2": 3}}

How = Literal["hangs", "down", "dead"]
When = Literal["embed", "registration"]


@dataclass(frozen=True)
class Case:
    """An unavailable service; how (stopped and continued; killed and restarted; killed for good); and when: `after`
    seconds after the first shard or the first version exists."""

    service: str
    how: How
    when: When
    after: float

    @property
    def name(self) -> str:
        return f"{self.service.lower()}-{self.how}-{self.when}-{self.after:.1f}".replace(".", "-")


CASES = [
    *(Case("S3", how, "embed", 0.5) for how in ("down", "hangs")),
    *(Case(service, how, "registration", 0.2) for how in ("down", "hangs") for service in DAEMONS),
    Case("MLflow", "dead", "registration", 0.2),
]


@dataclass(frozen=True)
class Ran:
    """A `samif run`: exit code, seconds, and its last line."""

    code: int
    seconds: float
    said: str


@dataclass
class Campaign:
    """A stack, a workspace that ran on it undisturbed, and the rows of the table."""

    folder: Path
    stack: Stack
    variables: Mapping[str, str]
    calm: dict[When, float] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)

    @property
    def undisturbed(self) -> Path:
        return self.folder / "calm"

    def begin(self) -> None:
        """The undisturbed runs: of everything, then of what each case repeats."""
        self._workspace("calm")
        ran = self._run("calm", lambda _: None)
        assert ran.code == 0, ran.said
        for when in get_args(When):
            name = f"calm-{when}"
            self._copy(name, when)
            ran = self._run(name, lambda _: None)
            assert ran.code == 0 and self._differences(name) == [], ran.said
            self.calm[when] = ran.seconds

    def run(self, case: Case) -> list[str]:
        """Run one case, add its row to the table, return the differences from the undisturbed run."""
        self._copy(case.name, case.when)
        begun = self._has_shard if case.when == "embed" else self._has_version

        def disturb(process: subprocess.Popen[str]) -> None:
            _until(lambda: begun(case.name), process)
            time.sleep(case.after)
            assert process.poll() is None, "the run ended before the outage"
            with self._unavailable(case):
                if case.how != "dead":
                    time.sleep(OUTAGE_SECONDS)

        ran = self._run(case.name, disturb)
        if case.how == "dead":
            how = f"exit code {ran.code} after {ran.seconds:.0f} s, MLflow restarted, then run again: `{ran.said}`"
            self.stack.up(None)
            ran, lost = self._run(case.name, lambda _: None), ""
        else:
            how, lost = "continued", f"{ran.seconds - self.calm[case.when]:.0f} s"
        differences = [f"exit code {ran.code}: {ran.said}"] if ran.code else self._differences(case.name)
        result = "same" if not differences else f"**{'; '.join(differences)}**"
        self.rows.append(
            f"| {case.service} | {case.how} | {case.when}, {case.after:.1f} s | {how} | {lost} | {result} |"
        )
        return differences

    @contextmanager
    def _unavailable(self, case: Case) -> Iterator[None]:
        tag = f"{self.stack.state.stack}/{DAEMONS[case.service]}"
        if case.how == "hangs":
            stopped = find_tagged(tag)
            for process in stopped:
                process.suspend()
            try:
                yield
            finally:
                for process in stopped:
                    process.resume()
        else:
            kill_tagged(tag)
            yield
            if case.how == "down":
                self.stack.up(None)

    def _run(self, name: str, disturb: Callable[[subprocess.Popen[str]], None]) -> Ran:
        started = time.monotonic()
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [SAMIF, "run", "--who", "outages", "--why", name],
                cwd=self.folder / name,
                env=os.environ | self.variables | {"COLUMNS": "200"},
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            disturb(process)
            code = process.wait(RUN_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        lines = log.read_text().split("\n")
        said = next((line for line in reversed(lines) if line.startswith("samif: ")), lines[-1])
        return Ran(code, time.monotonic() - started, said)

    def _differences(self, name: str) -> list[str]:
        """Differences from the undisturbed run."""
        root, found = self.folder / name, list[str]()
        for path in sorted(self.undisturbed.glob("artifacts/**/*.safetensors")):
            mine = root / path.relative_to(self.undisturbed)
            if "proposals" not in path.parts and file_sha256(mine) != file_sha256(path):
                found.append(f"{mine.relative_to(root)} differs")
        record = json.loads(max((root / ".samif" / "runs").iterdir()).read_text())
        if record["versions"] != VERSIONS:
            found.append(f"versions {record['versions']}")
        for model, count in (("decoder", 1), ("classifier", 3)):
            if len(self._versions(f"{name}-{model}")) != count:
                found.append(f"{len(self._versions(f'{name}-{model}'))} versions of the {model}")
        (experiment,) = [item for item in self._search("experiments/search") if item["name"] == name]
        runs = self._search("runs/search", experiment_ids=[experiment["experiment_id"]])
        if sorted(run["info"]["status"] for run in runs) != ["FINISHED"] * 4:
            found.append(f"{len(runs)} runs")
        layout = Layout(root)
        params = load_params(layout.params)
        registry = Registry(params.registry.tracking_uri, root)
        for number in (1, 2, 3):
            found += complaints(verify(registry, f"{name}/{number}", (layout, params)))
        return found

    def _workspace(self, name: str) -> None:
        root = self.folder / name
        (root / ".dvc").mkdir(parents=True)
        (root / ".dvc" / "config").write_text(
            "[core]\n    no_scm = True\n    analytics = False\n    check_update = False\n"
        )
        (root / ".dvcignore").write_text("/.samif\n/reports\n")
        yaml = YAML()
        params = yaml.load(new_text(name, list(BASE_PARTS), EncoderParams(), SESSIONS))
        params["dataset"]["drawn"] = {"base_images": 40, "mixed_images": 20, "val_images": 8, "size": 160}
        for section, changes in PARAMS.items():
            params[section].update(changes)
        params["embed"]["store"] = f"s3://{BUCKET}/{name}"
        params["registry"] = {"tracking_uri": self.variables["MLFLOW_TRACKING_URI"]}
        yaml.dump(params, root / "params.yaml")

    def _copy(self, name: str, when: When) -> None:
        """Copy the undisturbed workspace to a new line: computed, not registered; `embed`: with an empty store."""
        root = self.folder / name
        shutil.copytree(self.undisturbed, root)
        text = (root / "params.yaml").read_text(encoding="utf-8").replace("line: calm", f"line: {name}")
        if when == "embed":
            text = text.replace(f"s3://{BUCKET}/calm", f"s3://{BUCKET}/{name}")
        (root / "params.yaml").write_text(text, encoding="utf-8")

    def _has_shard(self, name: str) -> bool:
        answer = self.stack.ceph.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/")
        return int(answer["KeyCount"]) > 2

    def _has_version(self, name: str) -> bool:
        return bool(self._versions(f"{name}-decoder"))

    def _versions(self, model: str) -> list[Any]:
        return self._search("model-versions/search", filter=f"name = '{model}'")

    def _search(self, what: str, **query: Any) -> list[Any]:
        """The results of a search in MLflow, at most a thousand."""
        login = (self.variables["MLFLOW_TRACKING_USERNAME"], self.variables["MLFLOW_TRACKING_PASSWORD"])
        url = f"{self.variables['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{what}"
        if what.startswith("model-versions"):
            answer = requests.get(url, params=query | {"max_results": 1000}, auth=login, timeout=60)
        else:
            answer = requests.post(url, json=query | {"max_results": 1000}, auth=login, timeout=60)
        answer.raise_for_status()
        return next((value for value in answer.json().values() if isinstance(value, list)), [])


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, "the run did not get so far"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    skip_without_postgres()
    skip_without_ceph()
    folder = Path(tempfile.mkdtemp(prefix="samif-outages-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    stack = Stack(folder / "services")
    with pytest.MonkeyPatch.context() as environment:
        try:
            started = Campaign(folder, stack, stack.up(ten_free_ports()))
            for name, value in started.variables.items():
                environment.setenv(name, value)
            started.begin()
            yield started
            if os.environ.get("SAMIF_RECORD") and len(started.rows) == len(CASES):
                TABLE.write_text(_page(started), encoding="utf-8")
        finally:
            stack.down(remove_data=True)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_survives_an_outage(campaign: Campaign, case: Case) -> None:
    assert campaign.run(case) == []


def _page(campaign: Campaign) -> str:
    same = sum(row.endswith("| same |") for row in campaign.rows)
    head = f"""# Service outages

Services of `make services`, a small generated line with two sessions (embeddings and artifacts in the bucket, versions
in PostgreSQL through MLflow), and `samif run` while one service is unavailable for {OUTAGE_SECONDS:.0f} s. *Hangs*: SIGSTOP, then
SIGCONT. *Down*: SIGKILL, restarted after {OUTAGE_SECONDS:.0f} s. *Dead*: SIGKILL. *When*: time after the first shard was in the bucket,
or the first version in the registry. *Lost*: additional time against the undisturbed run ({campaign.calm["embed"]:.0f} s with embeddings to
compute, {campaign.calm["registration"]:.0f} s with only registration left). *Same*: decoder and classifiers bit-identical, equal version numbers, no
version and no MLflow run duplicated or unfinished, and all checksums of every version and the journal verified
(`samif registry verify`).

    {COMMAND}

{same} of {len(CASES)} runs gave the same result.
"""  # noqa: E501
    columns = ["| service | how | when | the run | lost | against undisturbed |", "|---|---|---|---|---|---|"]
    return "\n".join([head, *columns, *campaign.rows]) + "\n"
