"""What `samif doctor` looks at, on this machine and on workspaces that are not well."""

from __future__ import annotations

import socket
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from flows.runtime import s3
from flows.workspace import doctor
from flows.workspace.doctor import Check, examine
from flows.workspace.params_edit import new_text
from samif.config import EncoderParams


def rows(root: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(root)}


def workspace(root: Path, uri: str, store: str = ".samif/embeddings") -> Path:
    text = new_text("x", ["a"], EncoderParams(), {}).replace("tracking_uri: null", f"tracking_uri: {uri}")
    text = text.replace("store: .samif/embeddings", f"store: {store}")
    (root / "params.yaml").write_text(text)
    return root


def test_outside_a_workspace_only_the_machine_is_looked_at(tmp_path: Path) -> None:
    found = rows(tmp_path)
    assert found["python"].ok and found["torch"].ok and found["fonts"].ok
    assert "registry" not in found
    assert all(check.remedy for check in found.values() if not check.ok)


def test_a_registry_that_does_not_answer_and_a_store_in_the_way(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: nobody answers here
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / ".samif").mkdir()
        (tmp_path / ".samif" / "embeddings").write_text("a file where a folder should be")
        found = rows(workspace(tmp_path, uri))
    assert not found["registry"].ok
    assert "tracking_uri" in found["registry"].remedy
    assert not found["embedding store"].ok
    assert found["workspace"].ok


def test_broken_params_are_a_row_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("line: X\n")
    assert not rows(tmp_path)["params.yaml"].ok
    refused = rows(workspace(tmp_path, "http://ann:hunter2@127.0.0.1"))["params.yaml"]
    assert not refused.ok and "'registry.tracking_uri'" in refused.found and "hunter2" not in refused.found
    assert not any(tmp_path.glob(".samif"))


def test_a_missing_package_says_how_to_get_it() -> None:
    check = doctor._package(Requirement("samif-no-such-package"), [])
    assert not check.ok
    assert "make env" in check.remedy


def test_every_declared_dependency_is_a_row(tmp_path: Path) -> None:
    found = rows(tmp_path)
    declared = {Requirement(line) for line in metadata.requires("samif") or ()}
    assert {r.name for r in declared if r.marker is None} <= found.keys()
    assert "pytest" not in found


@pytest.mark.parametrize(
    ("requirement", "modules", "sentence"),
    [
        ("pydantic<2", ["pydantic"], ", expected <2"),
        ("pydantic", ["no_such_module"], "does not import: No module named 'no_such_module'"),
    ],
)
def test_a_package_must_import_in_a_version_that_is_expected(
    requirement: str, modules: list[str], sentence: str
) -> None:
    check = doctor._package(Requirement(requirement), modules)
    assert not check.ok and sentence in check.found


def test_a_bucket_that_cannot_be_written_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(variable, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    check = rows(workspace(tmp_path, "null", "s3://bucket/embeddings"))["embedding store"]
    assert not check.ok
    assert check.found == "s3://bucket/embeddings: EndpointConnectionError"
    assert "AWS_ENDPOINT_URL" in check.remedy
    assert not list(tmp_path.glob("s3:*"))


def test_a_bucket_is_asked_and_left_as_it_was(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = rows(workspace(tmp_path, "null", f"s3://{bucket}/embeddings"))["embedding store"]
    assert check.ok, check.found
    client = s3.client()
    assert client.list_objects_v2(Bucket=bucket).get("KeyCount") == 0
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    check = rows(workspace(tmp_path, "null", f"s3://{bucket}/embeddings"))["embedding store"]
    assert not check.ok and "SignatureDoesNotMatch" in check.found


def test_a_store_by_file_address_is_the_folder(tmp_path: Path) -> None:
    check = rows(workspace(tmp_path, "null", (tmp_path / "store").as_uri()))["embedding store"]
    assert check.ok and check.found == str(tmp_path / "store")
