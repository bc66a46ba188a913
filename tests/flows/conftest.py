"""Services that are started once for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.registry.registry import Registry
from tests.support.services import Ceph, ceph, mlflow_server, postgres


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite registry, made once: its first migration takes seconds."""
    root = tmp_path_factory.mktemp("migrated")
    _ = Registry(None, root)._store.client
    return root / ".samif" / "mlflow.db"


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory, s3_server: Ceph) -> Iterator[str]:
    """Address of an MLflow server over PostgreSQL with artifacts in a bucket; each test takes a line of its own."""
    tmp = tmp_path_factory.mktemp("registry")
    artifacts = f"s3://{s3_server.new_bucket()}/artifacts"
    with postgres(tmp) as database, mlflow_server(tmp, database.url, artifacts, s3_server.variables) as service:
        yield service.url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Ceph]:
    """A real S3 server; who kills it starts it again."""
    with ceph() as server:
        yield server


@pytest.fixture
def bucket(s3_server: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a new bucket; the environment says where it is and who we are."""
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()
