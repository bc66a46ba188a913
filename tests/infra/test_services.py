"""`make services` with real servers: authentication, secrets in files and processes, and a complete shutdown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import psutil
import psycopg
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from flows.registry.registry import Registry
from infra.services.backup import restore
from infra.services.daemon import find_tagged
from infra.services.ports import check_ports
from infra.services.postgres import Postgres, set_password
from infra.services.stack import Stack as InfraStack
from infra.services.state import PORTS, State, load_state, new_secrets, new_state, save_state
from samif.errors import SamifError
from tests.support.services import CommandLines, skip_without_ceph, skip_without_postgres, ten_free_ports

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 240


class Stack:
    """A stack in a folder of its own, driven by the make targets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_port = ten_free_ports()

    def make(self, target: str, **variables: str | int) -> str:
        """What the target prints; fails the test where it fails."""
        words = [f"{name}={value}" for name, value in {"SERVICES_DIR": self.folder, **variables}.items()]
        # The environment is what runs this test: not to be installed anew beneath it.
        command = ["make", "--silent", "--assume-old=.venv/.installed", target, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def state(self) -> State:
        state = load_state(self.folder / "state.json")
        assert state is not None
        return state

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a client, as a shell reads it."""
        command = ["env", "-i", "bash", "-c", f". {self.folder}/environment && env -0"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        return {name: value for name, _, value in (line.partition("=") for line in lines if "=" in line)}

    @property
    def secrets(self) -> set[str]:
        return {*self.state.secrets.model_dump().values(), self.variables["AWS_SECRET_ACCESS_KEY"]}


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[Stack, CommandLines]]:
    """The stack, up, and what could be seen of the processes while it started."""
    skip_without_postgres()
    skip_without_ceph()
    # Not pytest's own folder: PostgreSQL runs as a user who may not enter that.
    with TemporaryDirectory(prefix="samif-services-") as name:
        Path(name).chmod(0o755)
        stack = Stack(Path(name) / "services")
        try:
            with CommandLines() as watch:
                said = stack.make("services", SERVICES_PORT=stack.first_port)
            assert "everything answers" in said and not any(secret in said for secret in stack.secrets)
            yield stack, watch
        finally:
            stack.make("services-down", SERVICES_DATA="remove")
            assert list(stack.folder.iterdir()) == [stack.folder / "lock"]


@pytest.fixture(scope="module")
def stack(watched: tuple[Stack, CommandLines]) -> Stack:
    return watched[0]


# authentication


def _psql(variables: dict[str, str], database: str) -> None:
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    given = {name: variables[key] for name, key in names.items() if key in variables}
    psycopg.connect(**given, dbname=database, connect_timeout=5).close()


def _postgres(variables: dict[str, str]) -> None:
    _psql(variables, "mlflow")


def _s3(variables: dict[str, str]) -> None:
    key, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
    signed = {} if key else {"config": Config(signature_version=UNSIGNED)}
    session = boto3.session.Session(key, secret, region_name="us-east-1")
    session.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"], **signed).list_objects_v2(Bucket="samif")


def _mlflow(variables: dict[str, str]) -> None:
    login = (variables.get("MLFLOW_TRACKING_USERNAME", ""), variables.get("MLFLOW_TRACKING_PASSWORD", ""))
    url = f"{variables['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
    requests.get(url, auth=login if any(login) else None, timeout=10).raise_for_status()


def _dashboard(variables: dict[str, str]) -> None:
    token = variables.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    requests.get(f"{variables['RAY_API_SERVER_ADDRESS']}/api/jobs/", headers=headers, timeout=10).raise_for_status()


SERVICES = {
    "postgres": (_postgres, ["PGPASSWORD"], psycopg.OperationalError),
    "s3": (_s3, ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"], ClientError),
    "mlflow": (_mlflow, ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_USERNAME"], requests.HTTPError),
    "dashboard": (_dashboard, ["RAY_AUTH_TOKEN"], requests.HTTPError),
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_rejects_clients_without_the_environment(stack: Stack, service: str) -> None:
    enter, names, refusal = SERVICES[service]
    variables = stack.variables
    enter(variables)
    with pytest.raises(refusal):
        enter({**variables, names[0]: "x" * len(variables[names[0]])})
    with pytest.raises(refusal):
        enter({name: value for name, value in variables.items() if name not in names})


def test_ray_itself_requires_the_token(stack: Stack) -> None:
    """Not only its dashboard: the port that takes tasks, which is open to the network."""
    variables = stack.variables
    command = [Path(sys.executable).with_name("ray"), "status", "--address", variables["RAY_ADDRESS"]]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 48}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "InvalidAuthToken" in done.stderr


def test_mlflow_s_own_role_owns_its_databases_and_nothing_else(stack: Stack) -> None:
    variables = stack.variables
    role = {**variables, "PGUSER": "mlflow", "PGPASSWORD": stack.state.secrets.postgres_role}
    _psql(role, "mlflow_auth")
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    with psycopg.connect(**{name: role[key] for name, key in names.items()}, dbname="mlflow") as connection:
        rights = "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        assert connection.execute(rights).fetchone() == (False, False, False)


def test_a_registry_that_rejects_the_credentials_is_named(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = stack.variables
    registry = Registry(variables["MLFLOW_TRACKING_URI"], tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", variables["MLFLOW_TRACKING_USERNAME"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
    with pytest.raises(SamifError, match="does not know you; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_P"):
        registry.versions("demo")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", variables["MLFLOW_TRACKING_PASSWORD"])
    with pytest.raises(SamifError, match="has no 'demo-classifier'"):
        registry.versions("demo")


# secrets


def test_no_secret_is_in_command_lines_or_logs(watched: tuple[Stack, CommandLines]) -> None:
    stack, watch = watched
    assert any(b"initdb" in line for line in watch.seen)  # it did look
    secrets = {secret.encode() for secret in stack.secrets}
    assert len(secrets) == 6 and min(map(len, secrets)) >= 40
    assert not [line for line in watch.seen if any(secret in line for secret in secrets)]
    scratch = Path("/tmp") / f"samif-ray-{stack.state.stack[:12]}"
    files = [path for folder in (stack.folder, scratch) for path in folder.rglob("*") if path.is_file()]
    small = [path for path in files if path.stat().st_size < 1 << 26]
    holders = {path for path in small if any(secret in path.read_bytes() for secret in secrets)}
    meant = ("state.json", "environment", "mlflow/auth.ini", "ceph/credentials", "ray/token")
    assert holders == {stack.folder / name for name in meant}
    assert {oct(path.stat().st_mode & 0o777) for path in holders} == {"0o600"}
    assert {path.parent.name for path in small if path.suffix == ".log"} >= {"logs", "ceph"}


# starting again


def test_a_second_start_changes_nothing(stack: Stack) -> None:
    before = stack.state
    assert stack.make("services").count("answers, was running") == 4
    assert stack.state == before


def test_only_a_killed_service_is_started_again(stack: Stack) -> None:
    before = stack.state.daemons
    os.kill(before["postgres"].pid, signal.SIGKILL)
    stack.make("services")
    after = stack.state.daemons
    assert {name for name in before if before[name] != after[name]} == {"postgres"}
    _mlflow(stack.variables)  # has found its database again


# what it keeps


def test_a_lost_bucket_and_a_lost_database_are_restored(stack: Stack, tmp_path: Path) -> None:
    """All but embeddings, which are computed; the runbook's way, with the services running."""
    variables = stack.variables
    bucket = boto3.session.Session(
        variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
    ).client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"])
    content = {"mlflow/a/card.json": b"{}", "dvc/../../aa": b"a result", "embeddings/shard": b"numbers"}
    for key, body in content.items():
        bucket.put_object(Bucket="samif", Key=key, Body=body)
    experiments = f"{variables['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments"
    login = (variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"])
    requests.post(f"{experiments}/create", json={"name": "kept"}, auth=login, timeout=10).raise_for_status()

    said = stack.make("services-backup", SERVICES_BACKUP=tmp_path / "backup")
    assert said == f"saved 2 databases and 2 objects in {tmp_path / 'backup'}, 2 of them new\n"
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    for key in content:
        bucket.delete_object(Bucket="samif", Key=key)
    requests.post(f"{experiments}/create", json={"name": "later"}, auth=login, timeout=10).raise_for_status()

    said = stack.make("services-restore", SERVICES_BACKUP=tmp_path / "backup")
    assert said == "restored 2 databases and 2 of 2 objects; the others were unchanged\n"
    names = [item["Key"] for item in bucket.list_objects_v2(Bucket="samif")["Contents"]]
    assert names == ["dvc/../../aa", "mlflow/a/card.json"]
    answer = requests.get(f"{experiments}/search?max_results=9", auth=login, timeout=10).json()
    assert {item["name"] for item in answer["experiments"]} == {"Default", "kept"}
    with pytest.raises(SamifError, match="is no backup of the services"):
        restore(InfraStack(stack.folder), tmp_path)


def test_old_secrets_are_invalid_after_a_rotation(stack: Stack) -> None:
    """Broken off after PostgreSQL has the new password, and gone on with."""
    old = stack.variables
    state = stack.state.model_copy(update={"pending": new_secrets()})
    save_state(stack.folder / "state.json", state)
    assert state.pending is not None
    server = Postgres(stack.folder / "postgres", state.port("postgres"), state.secrets.postgres_administrator, "")
    with psycopg.connect(server.url("postgres", administrator=True), autocommit=True) as connection:
        set_password(connection, "samif", state.pending.postgres_administrator)
    with pytest.raises(SamifError, match="was interrupted; complete it with 'make services-rotate'"):
        InfraStack(stack.folder).up(None)
    stack.make("services-rotate")
    new = stack.variables
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {name for _, names, _ in SERVICES.values() for name in names} - {"MLFLOW_TRACKING_USERNAME"}
    for enter, _, refusal in SERVICES.values():
        enter(new)
        with pytest.raises(refusal):
            enter(old)


def test_it_ends_what_it_started_and_keeps_the_data(stack: Stack) -> None:
    """Near the end of this module: afterwards the stack is down."""
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        state = stack.state
        assert len(find_tagged(state.stack)) > 8
        said = stack.make("services-down")
        assert said.startswith("ended ceph-mon, ceph-osd, ceph-rgw, mlflow, postgres, ray-head")
        assert find_tagged(state.stack) == [] and bystander.poll() is None
        for who in state.daemons.values():
            assert not psutil.pid_exists(who.pid) or psutil.Process(who.pid).status() == psutil.STATUS_ZOMBIE
        check_ports(state, set(PORTS), "")
        assert (stack.folder / "postgres" / "db" / "PG_VERSION").exists() and stack.state.daemons == {}
        assert stack.make("services-down") == "nothing was running\n"
    finally:
        bystander.kill()
        bystander.wait()


# refusals


def test_a_port_in_use_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    first = ten_free_ports()
    with socket.create_server(("127.0.0.1", first + 3)):
        sentence = _refused(tmp_path / "services", first)
    assert f"port {first + 3}, for mlflow, is taken by process {os.getpid()} (" in sentence
    assert not (tmp_path / "services" / "postgres").exists()


def test_a_partly_started_stack_is_stopped(tmp_path: Path) -> None:
    skip_without_postgres()
    skip_without_ceph()
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "ceph-mon").write_text("#!/bin/sh\nsleep 2\necho broken on purpose >&2\nexit 1\n")
    (broken / "ceph-mon").chmod(0o755)
    with TemporaryDirectory(prefix="samif-services-") as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "services"
        sentence = _refused(folder, ten_free_ports(), PATH=f"{broken}:{os.environ['PATH']}")
        assert sentence == "services: setting up Ceph: ceph-mon failed: broken on purpose\n"
        state = load_state(folder / "state.json")
        assert state is not None and {"postgres", "ray-head"} <= state.daemons.keys()  # they had been started
        assert find_tagged(state.stack) == []
        check_ports(state, set(PORTS), "")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda text: text.replace("stack", "stock", 1),
            r"state.json is not the state of a stack of this release \(2 errors\)",
        ),
        (lambda text: text[:-20], r"state.json is not the state of a stack of this release \(1 errors\)"),
    ],
)
def test_a_damaged_state_is_named(tmp_path: Path, damage: Callable[[str], str], sentence: str) -> None:
    (tmp_path / "state.json").write_text(damage(new_state(20400).model_dump_json()))
    with pytest.raises(SamifError, match=sentence):
        load_state(tmp_path / "state.json")


def _refused(folder: Path, first_port: int, **environment: str) -> str:
    """What `up` says as it refuses."""
    command = [sys.executable, "-m", "infra.services", "--state", folder, "up", "--port", str(first_port)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr
