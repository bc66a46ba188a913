"""The containers: Compose takes the file, versions are pinned, no password stands in it, every reference holds."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose
from ruamel.yaml import YAML

from tests.support.infra_commands import check_samif

ROOT = Path(__file__).parents[2]
FILE = ROOT / "infra" / "compose.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$|^database_uri")

Document = dict[str, Any]


def load() -> Document:
    return YAML(typ="safe").load(FILE.read_text())


def faults(document: Document) -> list[str]:
    """What is wrong with a Compose file, one sentence each."""
    return [sentence for check in CHECKS for sentence in check(document)]


def _grammar(document: Document) -> Iterator[str]:
    try:
        PyCompose.from_json(json.dumps(document))
    except ValueError as error:
        yield f"not a Compose file: {error}"


def _pinned(document: Document) -> Iterator[str]:
    for name, service in document["services"].items():
        tag = service["image"].rpartition(":")[2]
        if ":" not in service["image"] or not re.search(r"\d+[.-]\d+", tag):
            yield f"{name}: image '{service['image']}' is not pinned"
        if service["image"].startswith("samif:") and tag != PROJECT["version"]:
            yield f"{name}: image '{service['image']}' is not version {PROJECT['version']}"


def _no_password(document: Document) -> Iterator[str]:
    """Each secret is a variable that has to be set; what is a secret is told by its name."""
    for name, service in document["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and key != "AWS_SHARED_CREDENTIALS_FILE" and not _is_asked_for(str(value)):
                yield f"{name}: {key} has a value of its own"
        for word in map(str, service.get("command", [])):
            if any(variable in word for variable in example()):
                yield f"{name}: a secret stands on the command line"
    for name, config in document["configs"].items():
        for line in config["content"].splitlines():
            if SECRET.search(line.partition(" ")[0]) and not _is_asked_for(line):
                yield f"config {name}: {line.partition(' ')[0]} has a value of its own"
    asked = set(re.findall(r"\$\{(\w+):\?", json.dumps(document)))
    if asked != set(example()):
        yield f"compose.env.example and the file differ in {', '.join(sorted(asked ^ set(example())))}"


def _healthy(document: Document) -> Iterator[str]:
    """Whatever goes on running has a health check, and who waits for it waits for that."""
    for name, service in document["services"].items():
        ends = service.get("restart") == "no"
        if ends == ("healthcheck" in service):
            yield f"{name}: {'ends, so it has no health' if ends else 'no health check'}"
        for other, how in service.get("depends_on", {}).items():
            target = document["services"].get(other)
            if target is None:
                yield f"{name}: waits for '{other}', which is not there"
                continue
            wanted = "service_completed_successfully" if target.get("restart") == "no" else "service_healthy"
            if how["condition"] != wanted:
                yield f"{name}: waits for {other} by {how['condition']}, not {wanted}"


def _led_somewhere(document: Document) -> Iterator[str]:
    listening = {"postgres": {5432}, "s3": {9000}, "mlflow": {5000}, "ray-head": {6379, 8265}, "serve": {8090}}
    volumes, used = set(document["volumes"]), set()
    for name, service in document["services"].items():
        used |= {volume.partition(":")[0] for volume in service.get("volumes", [])}
        for port in service.get("ports", []):
            address, _, inside = port.rpartition(":")
            if not address.startswith("127.0.0.1:"):
                yield f"{name}: port {port} is open to the network"
            if int(inside) not in listening.get(name, set()):
                yield f"{name}: publishes {inside}, where nothing listens"
        for config in service.get("configs", []):
            if config["source"] not in document["configs"]:
                yield f"{name}: config '{config['source']}' is not there"
        words = json.dumps([service.get("environment"), service.get("command")])
        for host, number in re.findall(r"(?:@|//|=|\")([a-z][a-z0-9-]*):(\d{4,5})", words):
            if host in document["services"] and int(number) not in listening[host]:
                yield f"{name}: asks {host} at {number}, where nothing listens"
            if host not in {*document["services"], "localhost"}:
                yield f"{name}: asks '{host}', which is not there"
    if used != volumes:
        yield f"volumes {', '.join(sorted(used ^ volumes))}: used and not named, or named and not used"


def _hardened(document: Document) -> Iterator[str]:
    for name, service in document["services"].items():
        if service.get("security_opt") != ["no-new-privileges:true"] or service.get("privileged"):
            yield f"{name}: may gain privileges"


def _commands(document: Document) -> Iterator[str]:
    for name, service in document["services"].items():
        if service.get("command", [""])[0] == "samif":
            words = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(word)) for word in service["command"]]
            yield from (f"{name}: {sentence}" for sentence in check_samif(words))


CHECKS = (_grammar, _pinned, _no_password, _healthy, _led_somewhere, _hardened, _commands)


def _is_asked_for(value: str) -> bool:
    return re.search(r"\$\{\w+:\?[^}]+\}", value) is not None


def example() -> list[str]:
    """Variables of compose.env.example; they have no value there."""
    lines = [line for line in FILE.with_name("compose.env.example").read_text().splitlines() if line[:1] not in "#"]
    assert all(line.endswith("=") for line in lines), lines
    return [line.rstrip("=") for line in lines]


def test_the_file_holds() -> None:
    document = load()
    assert faults(document) == []
    needed = {"postgres", "s3", "mlflow", "ray-head", "ray-worker", "serve"}
    assert needed <= document["services"].keys() and document["services"]["ray-worker"]["deploy"]["replicas"] == 2


def _at(document: Document, path: str) -> tuple[Any, str]:
    *way, last = path.split("/")
    for step in way:
        document = document[step]
    return document, last


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("services/s3/healthchek", {"test": ["CMD", "true"]}, "not a Compose file: .*extension key `healthchek`"),
        ("services/s3/healthcheck/interval", "often", "not a Compose file: .*`often`"),
        ("services/s3/depends_on", {"mlflow": {"condition": "service_well"}}, "not a Compose file"),
        ("services/s3/image", "minio/minio:latest", "s3: image .* is not pinned"),
        ("services/postgres/image", "postgres", "postgres: image 'postgres' is not pinned"),
        ("services/serve/image", "samif:0.0.9", "serve: image 'samif:0.0.9' is not version"),
        ("services/postgres/environment/POSTGRES_PASSWORD", "postgres", "POSTGRES_PASSWORD has a value of its own"),
        ("services/s3/environment/MINIO_ROOT_PASSWORD", "${S3_SECRET_KEY:-minio}", "ROOT_PASSWORD has a value of its"),
        ("services/mlflow/environment/MLFLOW_AUTH_ADMIN_PASSWORD", "${NEW:?set}", "example and the file differ in NEW"),
        ("services/s3/command", ["server", "--key", "${S3_SECRET_KEY}"], "s3: a secret stands on the command line"),
        ("configs/accounts/content", "database_uri = postgresql://a:b@postgres/c", "database_uri has a value"),
        ("services/mlflow/restart", "no", "mlflow: ends, so it has no health"),
        ("services/mlflow/depends_on/postgres/condition", "service_started", "waits for postgres by service_started"),
        ("services/mlflow/depends_on/minio", {"condition": "service_healthy"}, "waits for 'minio', which is not there"),
        ("services/mlflow/ports", ["5000:5000"], "mlflow: port 5000:5000 is open to the network"),
        ("services/s3/ports", ["127.0.0.1:9000:9001"], "s3: publishes 9001, where nothing listens"),
        ("services/serve/environment/AWS_ENDPOINT_URL", "http://s3:9001", "serve: asks s3 at 9001"),
        ("services/serve/environment/AWS_ENDPOINT_URL", "http://minio:9000", "serve: asks 'minio', which is not there"),
        ("services/s3/volumes", ["data:/data"], "volumes data, objects: used and not named"),
        ("services/ray-head/security_opt", [], "ray-head: may gain privileges"),
        (
            "services/serve/command",
            ["samif", "serve", "demo@champion", "--tokens"],
            "serve: .*No such option: --tokens",
        ),
    ],
)
def test_a_worse_file_is_refused(path: str, value: object, sentence: str) -> None:
    document = copy.deepcopy(load())
    place, last = _at(document, path)
    place[last] = value
    found = faults(document)
    assert any(re.search(sentence, fault) for fault in found), found


@pytest.mark.parametrize("service", ["postgres", "mlflow", "ray-worker"])
def test_without_a_health_check_it_is_refused(service: str) -> None:
    document = copy.deepcopy(load())
    del document["services"][service]["healthcheck"]
    assert f"{service}: no health check" in faults(document)


def test_compose_itself_takes_it_and_asks_for_every_secret() -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("docker compose is not installed")
    command = ["docker", "compose", "--file", FILE, "--profile", "serve", "config", "--quiet"]
    assert subprocess.run(command, capture_output=True, env={"PATH": "/usr/bin:/usr/local/bin"}).returncode != 0
    values = dict.fromkeys(example(), "x" * 24)
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/usr/local/bin", **values})
    assert done.returncode == 0, done.stderr


# the image


def _instructions(text: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def image_faults(text: str) -> list[str]:
    """What is wrong with the image's recipe."""
    steps = _instructions(text)
    found = []
    for word, rest in steps:
        if word == "FROM" and not re.match(r"python:3\.11\.\d+-[\w-]+( AS \w+)?$", rest):
            found.append(f"FROM {rest} is not pinned to a patch version of Python 3.11")
        if word in ("COPY", "ADD") and "--from" not in rest:
            found += [f"{source} does not exist" for source in rest.split()[:-1] if not (ROOT / source).exists()]
        if word == "ENV" and SECRET.search(rest.upper()):
            found.append("a secret in ENV")
    if [rest for word, rest in steps if word == "USER"][-1:] != ["1000"]:
        found.append("it does not end as user 1000")
    if "--constraint /tmp/requirements.lock" not in text:
        found.append("the pinned set is not used")
    for extra in re.findall(r"\.whl\)\[(\w+)\]", text):
        if extra not in PROJECT["optional-dependencies"]:
            found.append(f"there is no extra '{extra}'")
    return found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text, None),
        (lambda text: text.replace("3.11.13-slim", "3-slim"), "is not pinned"),
        (lambda text: text.replace("USER 1000\n", ""), "does not end as user 1000"),
        (lambda text: text.replace("COPY flows", "COPY flow"), "flow does not exist"),
        (lambda text: text.replace("--constraint", "--requirement"), "the pinned set is not used"),
        (lambda text: text.replace("[services]", "[server]"), "no extra 'server'"),
    ],
)
def test_the_image(change: Callable[[str], str], sentence: str | None) -> None:
    found = image_faults(change((ROOT / "infra" / "Dockerfile").read_text()))
    assert not found if sentence is None else sentence in " ".join(found)


def test_what_the_build_copies_is_not_ignored() -> None:
    ignored = (ROOT / "infra" / "Dockerfile.dockerignore").read_text().split()
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "infra" / "Dockerfile").read_text(), re.MULTILINE)
    assert {f"!{name}" for names in copied for name in names.split()} == {word for word in ignored if word[0] == "!"}
