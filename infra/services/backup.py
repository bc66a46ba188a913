"""Copies of what a stack keeps, and its return: both databases, and every object of the bucket but embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

from infra.services.daemon import call, foreign
from infra.services.postgres import DATABASES, ROLE, Postgres, installed
from infra.services.stack import BUCKET, Stack
from samif.errors import SamifError

COMPUTED = "embeddings/"
"""Objects below it are not copied: `samif run` computes again what the store lacks."""

_AT_ONCE = 8


def back_up(stack: Stack, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Copy databases and objects of a running stack into `folder`; objects that it has already are not fetched again.

    The databases first: what they name is in the bucket by then, so the copy holds it.

    Raises:
        SamifError: the stack does not run, or something cannot be read or written.
    """
    with stack.running(), _told("the backup"):
        databases = folder / "databases"
        databases.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in DATABASES:
            part = databases / f"{name}.part"
            _pg(stack.postgres, "saving a database", "pg_dump", "--format=custom", f"--file={part}", name)
            part.replace(databases / f"{name}.dump")
        client, objects = stack.ceph.client(), folder / "objects"

        def fetch(key: str, size: int) -> bool:
            path = objects / key
            if path.exists() and path.stat().st_size == size:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.part")
            client.download_file(BUCKET, key, str(part))
            part.replace(path)
            return True

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            fetched = list(pool.map(lambda item: fetch(*item), _objects(client)))
        say(f"saved {len(DATABASES)} databases and {len(fetched)} objects in {folder}, {sum(fetched)} of them new")


def restore(stack: Stack, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Put the databases back as they were, and the objects that the bucket lacks; what is newer there stays.

    Raises:
        SamifError: `folder` is no backup, the stack does not run, or something cannot be written.
    """
    dumps = {name: folder / "databases" / f"{name}.dump" for name in DATABASES}
    missing = [path for path in dumps.values() if not path.exists()]
    if missing:
        raise SamifError(f"{folder} is no backup of the services: there is no {missing[0]}; name the right folder")
    with stack.running(), _told("the restore"):
        for name, path in dumps.items():
            options = ("--clean", "--if-exists", "--single-transaction", "--no-owner", f"--role={ROLE}")
            _pg(stack.postgres, "restoring a database", "pg_restore", *options, f"--dbname={name}", str(path))
        client, objects = stack.ceph.client(), folder / "objects"
        there = dict(_objects(client))
        found = [path for path in objects.rglob("*") if path.is_file() and path.suffix != ".part"]
        keys = {path.relative_to(objects).as_posix(): path for path in found}
        lost = {key: path for key, path in keys.items() if there.get(key) != path.stat().st_size}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda item: client.upload_file(str(item[1]), BUCKET, item[0]), lost.items()))
        say(f"restored {len(DATABASES)} databases and {len(lost)} of {len(keys)} objects; the others were there")


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise SamifError(f"{what} broke off ({error}); what was copied stays, so run it again") from None


def _objects(client: Any) -> Iterator[tuple[str, int]]:
    """Key and size of everything that is not computed."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            if not item["Key"].startswith(COMPUTED):
                yield item["Key"], item["Size"]


def _pg(server: Postgres, what: str, program: str, *options: str) -> None:
    environment = {**foreign("PG"), **server.administrator_variables}
    call(what, [installed() / program, *options], environment, Path("/"), seconds=3600)
