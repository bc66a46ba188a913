"""Strangers at every door of a running stack, and every secret of it searched wherever it could show."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from flows.http.signature import signed_headers
from flows.triggers.queue import Queue
from infra.services.ray import ADDRESS
from infra.services.stack import BUCKET
from tests.support.services import skip_without_ceph, skip_without_postgres
from tests.support.stack_site import LINE, Serving, Site, forms, receiving, serving, site, until

pytestmark = pytest.mark.slow

HOLDERS = {
    "services/state.json",
    "services/environment",
    "services/mlflow/auth.ini",
    "services/ceph/credentials",
    "services/ceph/keyring",
    "services/ceph/mon/keyring",
    "services/ray/token",
}
"""The only files that may hold a secret, beside the one for the token that `samif serve` makes and Ceph's own database
of its keys; of mode 0600."""
CEPH_KEYS, CEPH_DISK = "services/ceph/mon/store.db", "services/ceph/osd/block"

WRONG = "nobody-s-secret-" + "0" * 32
WRONG_SECRET = "whsec_" + "0" * 32


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """The stack, and a line that has not run yet."""
    skip_without_postgres()
    skip_without_ceph()
    with site() as made:
        yield made


@pytest.fixture(scope="module")
def ran(here: Site) -> Site:
    """The same once the line has run on it, its embeddings computed by the stack's Ray."""
    here.samif("run", "--who", "ann", "--why", "access")
    here.samif("doctor")
    return here


@pytest.fixture(scope="module")
def receiver(ran: Site) -> Iterator[str]:
    with receiving(ran) as address:
        yield address


@pytest.fixture(scope="module")
def service(ran: Site) -> Iterator[Serving]:
    with serving(ran) as made:
        yield made


# who is refused


MLFLOW: dict[str, tuple[str, str, Any]] = {
    "read": ("GET", "/api/2.0/mlflow/experiments/search?max_results=1", None),
    "read as a page does": ("GET", "/ajax-api/2.0/mlflow/experiments/search?max_results=1", None),
    "read by graphql": ("POST", "/graphql", {"query": "{__typename}"}),
    "write": ("POST", "/api/2.0/mlflow/experiments/create", {"name": "unauthenticated"}),
    "register": ("POST", "/api/2.0/mlflow/registered-models/create", {"name": "unauthenticated"}),
    "put live": (
        "POST",
        "/api/2.0/mlflow/registered-models/alias",
        {"name": f"{LINE}-classifier", "alias": "champion", "version": "1"},
    ),
    "make an account": ("POST", "/api/2.0/mlflow/users/create", {"username": "unauthenticated", "password": WRONG}),
    "list artifacts": ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=", None),
    "read an artifact": ("GET", "/api/2.0/mlflow-artifacts/artifacts/1/card.json", None),
    "write an artifact": ("PUT", "/api/2.0/mlflow-artifacts/artifacts/unauthenticated", {"x": 1}),
    "remove an artifact": ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1", None),
    "read a run's file": ("GET", "/get-artifact?path=card.json&run_uuid=1", None),
    "the page": ("GET", "/", None),
}


@pytest.mark.parametrize("what", MLFLOW)
def test_mlflow_rejects_unauthenticated_requests(here: Site, what: str) -> None:
    method, path, content = MLFLOW[what]
    url = here.variables["MLFLOW_TRACKING_URI"] + path
    for login in (None, (here.variables["MLFLOW_TRACKING_USERNAME"], WRONG), ("nobody", WRONG)):
        answer = requests.request(method, url, json=content, auth=login, timeout=30)
        assert answer.status_code == 401, (login, answer.text[:200])


S3: dict[str, Callable[[Any], Any]] = {
    "list": lambda client: client.list_objects_v2(Bucket=BUCKET),
    "read": lambda client: client.get_object(Bucket=BUCKET, Key="unauthenticated"),
    "write": lambda client: client.put_object(Bucket=BUCKET, Key="unauthenticated", Body=b"x"),
    "remove": lambda client: client.delete_object(Bucket=BUCKET, Key="unauthenticated"),
    "make a bucket": lambda client: client.create_bucket(Bucket="unauthenticated"),
    "ask for its rules": lambda client: client.get_bucket_acl(Bucket=BUCKET),
}


@pytest.mark.parametrize("what", S3)
def test_the_bucket_rejects_unauthenticated_requests(here: Site, what: str) -> None:
    key = here.variables["AWS_ACCESS_KEY_ID"]
    sessions = ({"config": Config(signature_version=UNSIGNED)}, _keys(key, WRONG), _keys("WRONG", WRONG))
    _s3(here, _keys(key, here.variables["AWS_SECRET_ACCESS_KEY"])).put_object(
        Bucket=BUCKET, Key="unauthenticated", Body=b""
    )
    for session in sessions:
        with pytest.raises(ClientError) as refusal:
            S3[what](_s3(here, session))
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def _keys(key: str, secret: str) -> dict[str, Any]:
    return {"aws_access_key_id": key, "aws_secret_access_key": secret}


def _s3(here: Site, given: dict[str, Any]) -> Any:
    return boto3.client("s3", endpoint_url=here.variables["AWS_ENDPOINT_URL"], region_name="us-east-1", **given)


@pytest.mark.parametrize("user", ["samif", "mlflow", "postgres", "nobody"])
@pytest.mark.parametrize("password", [WRONG, ""])
def test_postgresql_rejects_wrong_passwords(here: Site, user: str, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
        psycopg.connect(
            host="127.0.0.1", port=here.variables["PGPORT"], user=user, password=password or None, dbname="mlflow",
            connect_timeout=10,
        )  # fmt: skip


JOB = {"entrypoint": "true"}
RAY: dict[str, tuple[str, str, str, Any]] = {
    "list jobs": ("dashboard", "GET", "/api/jobs/", None),
    "start a job": ("dashboard", "POST", "/api/jobs/", JOB),
    "list nodes": ("dashboard", "GET", "/api/v0/nodes", None),
    "list logs": ("dashboard", "GET", "/api/v0/logs", None),
    "serve an application": ("dashboard", "PUT", "/api/serve/applications/", {"applications": []}),
    "send a package": ("dashboard", "PUT", "/api/packages/gcs/x.zip", None),
    "list a node's jobs": ("agent", "GET", "/api/job_agent/jobs/", None),
    "start a job on a node": ("agent", "POST", "/api/job_agent/jobs/", JOB),
}


@pytest.mark.parametrize("what", RAY)
def test_ray_rejects_unauthenticated_requests(here: Site, what: str) -> None:
    place, method, path, content = RAY[what]
    agent = f"http://{ADDRESS}:{here.stack.state.port('ray-head-agent')}"
    url = (agent if place == "agent" else here.variables["RAY_API_SERVER_ADDRESS"]) + path
    for token, status in ((None, 401), (WRONG, 403)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.request(method, url, json=content, headers=headers, timeout=30)
        assert answer.status_code == status, answer.text[:200]


def _delivery(secret: str, identity: str) -> tuple[bytes, dict[str, str]]:
    place = {"bucket": {"name": BUCKET}, "object": {"key": f"photos/{identity}"}}
    body = json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": place}]}).encode()
    return body, signed_headers(secret, identity, body)


def test_the_receiver_rejects_unsigned_requests(here: Site, receiver: str) -> None:
    """A run is made for the one who signs, once."""
    body, signed = _delivery(here.webhook_secret, "one")
    _, wrong = _delivery(WRONG_SECRET, "one")
    sent = [({}, body), (wrong, body), (signed, body + b" "), (signed, body), (signed, body)]
    answers = [requests.post(receiver, data=data, headers=headers, timeout=30) for headers, data in sent]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 202, 401]
    assert [answer.json().get("error", {}).get("code") for answer in answers[-1:]] == ["replayed"]
    until(lambda: [item.state for item in Queue(here.root).all()] == ["done"])


def test_the_service_rejects_unauthenticated_requests(service: Serving) -> None:
    token = service.token_file.read_text().strip()
    codes = []
    for given in (None, WRONG, token):
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        codes.append(requests.get(f"{service.url}/v1/model", headers=headers, timeout=60).status_code)
    assert codes == [401, 401, 200]


# what shows


@pytest.fixture(scope="module")
def searched(here: Site, receiver: str, service: Serving) -> dict[str, set[bytes]]:
    """Name -> forms of every secret."""
    found = here.secrets() | {"serve": service.token_file.read_text().strip()}
    assert len(found) > 12 and min(map(len, found.values())) >= 16
    return {name: forms(secret) for name, secret in found.items()}


def _seen(searched: dict[str, set[bytes]], content: bytes) -> set[str]:
    """Names of the secrets in it."""
    return {name for name, looks in searched.items() if any(look in content for look in looks)}


@pytest.mark.parametrize("around", ["%s", "samif:%s", "a:%s@h", ":%s", "postgresql://mlflow:%s@127.0.0.1/mlflow"])
def test_a_secret_is_found_in_base64_in_any_context(around: str) -> None:
    secret = secrets.token_hex(24)
    looks = {"it": forms(secret)}
    for coded in (base64.b64encode, base64.urlsafe_b64encode):
        assert _seen(looks, b"Basic " + coded((around % secret).encode())) == {"it"}
    assert not _seen(looks, base64.b64encode((around % secrets.token_hex(24)).encode()))


def _files(top: Path) -> Iterator[tuple[Path, int]]:
    """Each with its size; what vanishes meanwhile is left out."""
    for path in top.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path, path.stat().st_size


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_only_files_of_secrets_hold_a_secret(here: Site, service: Serving, searched: dict[str, set[bytes]]) -> None:
    """Data and logs of every service, what the commands printed, cards, reports, records, caches, temporary files."""
    scratch = here.stack.ray.scratch
    sizes = {path: size for top in (here.folder, scratch, service.ray) for path, size in _files(top)}
    names = {path.name for path in sizes}
    assert {"run", "doctor", "trigger", "serve", "summary.json", "index.html", "mlflow.log", "ceph-rgw.log"} <= names
    for top in (scratch, service.ray):
        assert any(path.suffix == ".log" and path.is_relative_to(top) for path in sizes)
    large = {path for path, size in sizes.items() if size >= 1 << 26}
    found = {path: seen for path in sizes.keys() - large if (seen := _seen(searched, _content(path)))}
    meant = {here.folder / name for name in HOLDERS} | {service.token_file}
    keys = {path for path in found if path.is_relative_to(here.folder / CEPH_KEYS)}
    assert {str(path): seen for path, seen in found.items() if path not in meant | keys} == {}
    assert meant <= set(found) and large == {here.folder / CEPH_DISK}  # the bucket, which is searched as one
    assert {oct(path.stat().st_mode & 0o777) for path in meant | keys | large} == {"0o600"}


def test_no_object_of_the_bucket_holds_a_secret(here: Site, searched: dict[str, set[bytes]]) -> None:
    client = here.stack.ceph.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    assert {key.split("/")[0] for key in keys} >= {"embeddings", "dvc", "mlflow"}
    assert any(key.endswith("card.json") for key in keys) and any(key.endswith("params.yaml") for key in keys)
    found = {key: _seen(searched, client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) for key in keys}
    assert {key: seen for key, seen in found.items() if seen} == {}


def test_no_answer_of_mlflow_holds_a_secret(here: Site, searched: dict[str, set[bytes]]) -> None:
    """Tags, parameters and names of every run, model and version, the journal's and the records' among them."""
    api = f"{here.variables['MLFLOW_TRACKING_URI']}/api/2.0/mlflow"
    login = (here.variables["MLFLOW_TRACKING_USERNAME"], here.variables["MLFLOW_TRACKING_PASSWORD"])
    most = {"max_results": 1000}
    experiments = requests.post(f"{api}/experiments/search", json=most, auth=login, timeout=60).json()
    ids = [item["experiment_id"] for item in experiments["experiments"]]
    runs = requests.post(f"{api}/runs/search", json=most | {"experiment_ids": ids}, auth=login, timeout=60).text
    models = requests.get(f"{api}/registered-models/search", params=most, auth=login, timeout=60).text
    versions = requests.get(f"{api}/model-versions/search", params=most, auth=login, timeout=60).text
    assert f"{LINE}-decoder" in models and "decoder_version" in versions and '"tags"' in runs
    assert _seen(searched, f"{experiments}{runs}{models}{versions}".encode()) == set()


def test_no_command_line_shows_a_secret(here: Site, searched: dict[str, set[bytes]]) -> None:
    """Of any process of this machine, from the start of the stack on."""
    seen = set(here.lines.seen)
    for ours in (b"initdb", b"radosgw-admin", b"stage\0", b"trigger\0work", b"mlflow", b"gcs_server"):
        assert any(ours in line for line in seen), ours
    assert {name for line in seen for name in _seen(searched, line)} == set()
