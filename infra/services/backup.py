"""Backup and restore of a stack: both databases, and every object of the bucket but embeddings.

Folder layout: `databases/NAME.dump`, `objects/<SHA-256>` (content), and `objects.json` (key -> content). Keys are never
used as paths, so no key can leave the folder or hide another one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from infra.services.daemon import call, environment_without
from infra.services.postgres import DATABASES, ROLE, Postgres, server_programs
from infra.services.stack import BUCKET, Stack
from samif.config import Strict
from samif.errors import DataError, IntegrityError, ServiceUnavailable
from samif.io.document import Document
from samif.io.hashing import file_sha256

COMPUTED = "embeddings/"
"""Prefix of objects that are not copied: `samif run` computes again what the store lacks."""

INDEX = "objects.json"
THREADS = 8
CHUNK_BYTES = 1 << 20


class SavedObject(Strict):
    """The content of an object: SHA-256, which names its file, bytes, and the ETag that S3 gave it."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int
    etag: str


class ObjectIndex(Document):
    """The file `objects.json`: the objects of a backup, by key."""

    WHAT = "an index of a backup"
    REMEDY = "use another backup, or back up into a new folder"
    objects: dict[str, SavedObject]


def back_up(stack: Stack, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Copy databases and objects of a running stack into `folder`; objects that are unchanged since the last backup
    there are not downloaded again, and objects that the bucket has lost since stay in the backup.

    The databases come first: the objects that they name are in the bucket by then.

    Raises:
        ServiceUnavailable: the stack does not run, or something cannot be read or written.
    """
    with stack.running(), _reported("the backup"):
        databases = folder / "databases"
        databases.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in DATABASES:
            part = databases / f"{name}.part"
            _pg(stack.postgres, "saving a database", "pg_dump", "--format=custom", f"--file={part}", name)
            part.replace(databases / f"{name}.dump")
        count, new = save_objects(stack.ceph.client(), BUCKET, folder)
        say(f"saved {len(DATABASES)} databases and {count} objects in {folder}, {new} of them new")


def restore(stack: Stack, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Restore the databases as they were, and the objects that the bucket lacks or has with other content; objects that
    came later stay.

    Raises:
        DataError: `folder` is no backup.
        IntegrityError: a file of the backup is damaged.
        ServiceUnavailable: the stack does not run, or something cannot be written.
    """
    dumps = {name: folder / "databases" / f"{name}.dump" for name in DATABASES}
    missing = [path for path in (*dumps.values(), folder / INDEX) if not path.exists()]
    if missing:
        raise DataError(
            f"{folder} is no backup of the services of this release: there is no {missing[0]}; name the right folder"
        )
    index = ObjectIndex.load(folder / INDEX)
    with stack.running(), _reported("the restore"):
        # objects first: the databases name them, and damaged files are found before anything is changed
        uploaded = restore_objects(stack.ceph.client(), BUCKET, folder, index)
        for name, path in dumps.items():
            options = ("--clean", "--if-exists", "--single-transaction", "--no-owner", f"--role={ROLE}")
            _pg(stack.postgres, "restoring a database", "pg_restore", *options, f"--dbname={name}", str(path))
        count = f"{uploaded} of {len(index.objects)} objects"
        say(f"restored {len(DATABASES)} databases and {count}; the others were unchanged")


def save_objects(client: Any, bucket: str, folder: Path) -> tuple[int, int]:
    """Download the objects of a bucket that `folder` lacks; the numbers of all objects and of downloaded ones."""
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    saved = dict(ObjectIndex.load(folder / INDEX).objects) if (folder / INDEX).exists() else {}
    guard = threading.Lock()

    def fetch(key: str, size: int, etag: str) -> bool:
        known = saved.get(key)
        if known is not None and (known.size, known.etag) == (size, etag) and _content(folder, known).exists():
            return False
        found = _download(client, bucket, key, folder)
        with guard:
            saved[key] = found
        return True

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            fetched = list(pool.map(lambda item: fetch(*item), list(_objects(client, bucket))))
    finally:  # what was downloaded before a failure is not downloaded again
        ObjectIndex(objects=dict(sorted(saved.items()))).save(folder / INDEX)
    return len(fetched), sum(fetched)


def restore_objects(client: Any, bucket: str, folder: Path, index: ObjectIndex) -> int:
    """Upload the objects of a backup that the bucket lacks or has with other content; how many those are.

    Raises:
        IntegrityError: a file of the backup is missing or damaged; nothing is uploaded then.
    """
    there = {key: (size, etag) for key, size, etag in _objects(client, bucket)}
    changed = {key: found for key, found in index.objects.items() if there.get(key) != (found.size, found.etag)}
    for key, found in changed.items():
        path = _content(folder, found)
        if not path.is_file() or file_sha256(path) != found.sha256:
            raise IntegrityError(f"{path}, the content of object '{key}', is missing or damaged; use another backup")
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(client.upload_file, str(_content(folder, f)), bucket, key) for key, f in changed.items()]
        for job in jobs:
            job.result()
    return len(changed)


def _download(client: Any, bucket: str, key: str, folder: Path) -> SavedObject:
    answer = client.get_object(Bucket=bucket, Key=key)
    digest, size = hashlib.sha256(), 0
    part = folder / "objects" / f"{threading.get_ident()}.part"
    with part.open("wb") as file:
        for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    found = SavedObject(sha256=digest.hexdigest(), size=size, etag=answer["ETag"])
    part.replace(_content(folder, found))
    return found


def _content(folder: Path, saved: SavedObject) -> Path:
    return folder / "objects" / saved.sha256


@contextmanager
def _reported(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise ServiceUnavailable(f"{what} failed ({error}); what was copied stays, run it again") from error


def _objects(client: Any, bucket: str) -> Iterator[tuple[str, int, str]]:
    """Key, size and ETag of every object that is not computed."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            if not item["Key"].startswith(COMPUTED):
                yield item["Key"], item["Size"], item["ETag"]


def _pg(server: Postgres, what: str, program: str, *options: str) -> None:
    environment = {**environment_without("PG"), **server.administrator_variables}
    call(what, [server_programs() / program, *options], environment, Path("/"), seconds=3600)
