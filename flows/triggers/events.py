"""The cause of a run in one line, from an event of a bucket or of MLflow's registry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.http.errors import HttpError

_MAX_LENGTH = 300
_OWN_MODELS = ("-decoder", "-classifier", "-journal")
"""Endings of registered models that runs write themselves, of this line or another one: an event about them must not
start the next run."""

Short = Annotated[str, Field(max_length=1024)]


class _Loose(BaseModel):
    """Part of another system's format: the fields that are read are checked, others are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Bucket(_Loose):
    name: Short


class _Object(_Loose):
    key: Short
    eTag: Short = ""
    sequencer: Short = ""


class _S3(_Loose):
    bucket: _Bucket
    object: _Object


class _Record(_Loose):
    eventName: Short
    eventTime: Short = ""
    s3: _S3


class _BucketEvent(_Loose):
    """As AWS S3, Ceph and MinIO send it."""

    Records: list[_Record] = Field(min_length=1, max_length=1000)


class _RegistryData(_Loose):
    name: Short
    version: Short = ""
    alias: Short = ""
    key: Short = ""
    value: Short | None = None


class _RegistryEvent(_Loose):
    """As MLflow sends it."""

    entity: Short
    action: Short
    timestamp: Short = ""
    data: _RegistryData


def cause_of(payload: Any, at: int, prefixes: Sequence[str] = ()) -> str | None:
    """The cause of a run, in one line.

    The same event gives the same line however often it is delivered, and another event another one: an object that is
    put back, or an alias that returns, is a new event.

    Args:
        payload: the parsed JSON of an S3 event or of an MLflow webhook.
        at: Unix seconds of the delivery; stands for the time of an event that has neither a time nor a sequence number,
            so that a later one of the same kind is not taken for the same.
        prefixes: s3://bucket/prefix; events about other objects are ignored. Without any, all count.

    Returns:
        The line, or none where the event is no reason for a run.

    Raises:
        HttpError: 400; it is neither of the two.
    """
    try:
        if isinstance(payload, dict) and "Records" in payload:
            return _of_bucket(_BucketEvent.model_validate(payload), at, prefixes)
        if isinstance(payload, dict) and payload.get("Event") == "s3:TestEvent":
            return None
        return _of_registry(_RegistryEvent.model_validate(payload), at)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise HttpError(
            400, "shape", f"this is neither an S3 event nor an MLflow webhook ({where}: {first['msg'].lower()})"
        ) from None


def _of_bucket(event: _BucketEvent, at: int, prefixes: Sequence[str]) -> str | None:
    changes = []
    for record in event.Records:
        address = f"s3://{record.s3.bucket.name}/{unquote_plus(record.s3.object.key)}"
        kind = record.eventName.removeprefix("s3:").partition(":")[0]
        included = not prefixes or any(address.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
        if kind in ("ObjectCreated", "ObjectRemoved") and included:
            order = record.s3.object.sequencer or record.eventTime or str(at)
            changes.append(" ".join(filter(None, (kind, address, record.s3.object.eTag.strip('"'), order))))
    if not changes:
        return None
    if len(changes) == 1:
        return _one_line(changes[0])
    return _one_line(f"{len(changes)} objects, the first {changes[0]}", sum_of=sorted(changes))


def _of_registry(event: _RegistryEvent, at: int) -> str | None:
    data = event.data
    if data.name.endswith(_OWN_MODELS):
        return None
    version = f"/{data.version}" if data.version else ""
    # a version's number is given once, while an alias may come back to a version
    once = bool(version) and (event.entity, event.action) == ("model_version", "created")
    extra = (data.alias and f"@{data.alias}", data.key, data.value, "" if once else event.timestamp or str(at))
    return _one_line(" ".join(filter(None, (f"{event.entity}.{event.action}", data.name + version, *extra))))


def _one_line(text: str, sum_of: Sequence[str] = ()) -> str:
    """Printable and of bounded length; a digest distinguishes texts that were cut or changed."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "?", text)
    if plain == text and len(text) <= _MAX_LENGTH and not sum_of:
        return text
    digest = hashlib.sha256("\n".join(sum_of or [text]).encode("utf-8", "replace")).hexdigest()
    return f"{plain[:_MAX_LENGTH]} ({digest[:16]})"
