"""Backup and restore of objects, over a stub of S3; `test_services` covers real servers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.response import StreamingBody

import infra.services.backup as backup_module
from infra.services.backup import back_up, restore
from samif.errors import DataError, IntegrityError

KEYS = (
    "mlflow/a/card.json", "../outside", "a/../../outside", "a//b", "folder/", "file", "file/below", "x.part",
    "..", "ü und ö", "objects.json",
)  # fmt: skip


class FakeS3:
    """The part of an S3 client that a backup uses, over a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.downloads = 0

    def get_paginator(self, name: str) -> FakeS3:
        assert name == "list_objects_v2"
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        items = [{"Key": k, "Size": len(v), "ETag": _etag(v)} for k, v in sorted(self.objects.items())]
        return [{"Contents": items[:5]}, {"Contents": items[5:]}, {}]

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.downloads += 1
        content = self.objects[Key]
        return {"Body": StreamingBody(BytesIO(content), len(content)), "ETag": _etag(content)}

    def upload_file(self, path: str, bucket: str, key: str) -> None:
        self.objects[key] = Path(path).read_bytes()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class FakeStack:
    def __init__(self, client: FakeS3) -> None:
        self.ceph, self.postgres = SimpleNamespace(client=lambda: client), None

    @contextmanager
    def running(self) -> Iterator[None]:
        yield


@pytest.fixture
def s3() -> FakeS3:
    return FakeS3()


@pytest.fixture
def stack(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stack whose databases are empty files."""

    def pg(_server: object, _what: str, program: str, *options: str) -> None:
        if program == "pg_dump":
            Path(next(o for o in options if o.startswith("--file=")).removeprefix("--file=")).touch()

    monkeypatch.setattr(backup_module, "_pg", pg)
    return FakeStack(s3)


def test_every_key_comes_back_and_no_file_leaves_the_folder(stack: Any, s3: FakeS3, tmp_path: Path) -> None:
    s3.objects = {key: f"content of {key}".encode() for key in (*KEYS, f"{tmp_path}/absolute")}
    before = dict(s3.objects)
    folder = tmp_path / "backups" / "today"
    back_up(stack, folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(folder)] == []
    s3.objects = {}
    restore(stack, folder)
    assert s3.objects == before


def test_changed_content_of_equal_size_is_saved_and_restored(stack: Any, s3: FakeS3, tmp_path: Path) -> None:
    s3.objects = {"alias": b"version 1", "same": b"unchanged"}
    back_up(stack, tmp_path)
    s3.objects["alias"] = b"version 2"
    s3.downloads = 0
    back_up(stack, tmp_path)
    assert s3.downloads == 1
    s3.objects["alias"] = b"damaged !"
    restore(stack, tmp_path)
    assert s3.objects["alias"] == b"version 2"


def test_embeddings_are_left_out_and_lost_objects_stay_in_the_backup(stack: Any, s3: FakeS3, tmp_path: Path) -> None:
    s3.objects = {"embeddings/shard": b"numbers", "dvc/a": b"a"}
    back_up(stack, tmp_path)
    s3.objects = {"dvc/b": b"b"}
    back_up(stack, tmp_path)
    s3.objects = {"later": b"c"}
    restore(stack, tmp_path)
    assert s3.objects == {"dvc/a": b"a", "dvc/b": b"b", "later": b"c"}


def test_an_interrupted_backup_keeps_what_it_downloaded(
    stack: Any, s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.objects = {"a": b"a", "b": b"b"}
    monkeypatch.setattr(backup_module, "THREADS", 1)
    whole, get = s3.get_object, s3.get_object

    def fail(Bucket: str, Key: str) -> dict[str, Any]:
        if Key == "b":
            raise OSError("connection lost")
        return get(Bucket, Key)

    monkeypatch.setattr(s3, "get_object", fail)
    with pytest.raises(backup_module.ServiceUnavailable, match="the backup failed .connection lost"):
        back_up(stack, tmp_path)
    monkeypatch.setattr(s3, "get_object", whole)
    s3.downloads = 0
    back_up(stack, tmp_path)
    assert s3.downloads == 1


@pytest.mark.parametrize("damage", [b"other", None])
def test_a_damaged_file_is_not_restored(stack: Any, s3: FakeS3, tmp_path: Path, damage: bytes | None) -> None:
    s3.objects = {"a": b"a" * 5, "b": b"b" * 5}
    back_up(stack, tmp_path)
    path = tmp_path / "objects" / hashlib.sha256(b"bbbbb").hexdigest()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    s3.objects = {}
    with pytest.raises(IntegrityError, match="content of object 'b', is missing or damaged"):
        restore(stack, tmp_path)
    assert s3.objects == {}


def test_an_index_that_names_a_path_is_refused(stack: Any, s3: FakeS3, tmp_path: Path) -> None:
    s3.objects = {"a": b"a"}
    back_up(stack, tmp_path)
    index = tmp_path / "objects.json"
    index.write_text(index.read_text().replace(hashlib.sha256(b"a").hexdigest(), "../../etc/passwd"))
    with pytest.raises(IntegrityError, match="objects.json is damaged"):
        restore(stack, tmp_path)


def test_a_folder_without_a_backup_is_refused(stack: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no backup of the services"):
        restore(stack, tmp_path)
