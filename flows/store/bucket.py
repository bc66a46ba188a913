"""Storage of the embedding store in an S3 bucket."""

from __future__ import annotations

import email.utils
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from flows.runtime.retry import Transient, retry_for, retry_times
from flows.store.cache import Cache, Parts
from flows.store.storage import Chunks, Entry, Span
from samif.errors import ObjectMissing, ServiceUnavailable

if TYPE_CHECKING:
    from tenacity import Retrying

    from flows.runtime.s3 import Refused

T = TypeVar("T")

_GAP = 2 << 20
"""Gap between two ranges that is read rather than skipped: a request takes as long as two MiB, on loopback (4 ms) and
in a cloud (25 ms at 80 MB/s)."""
_PIECE = 32 << 20
"""Longer ranges are split and read in parallel."""
_PIECES = 4
_KEYS = 1000
"""Most keys that one request lists or deletes."""
_DIGITS = "0123456789abcdef"


class Bucket:
    """Storage under a prefix of a bucket. Endpoint and credentials come from the environment or the machine's role.

    Each call is retried while the server does not answer or asks to slow down (AWS_MAX_ATTEMPTS times, else for a
    minute), then ServiceUnavailable is raised. The client is made by the first call of each process.
    """

    parallel_calls = 16

    def __init__(self, bucket: str, prefix: str, cache: Cache) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.location = f"s3://{bucket}/{prefix}".rstrip("/")
        self.cache = cache
        self._lock = threading.Lock()
        self._client: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "prefix": self.prefix, "location": self.location, "cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _client=None)

    def read(self, name: str) -> bytes | None:
        def get(s3: Any) -> bytes:
            return bytes(s3.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read())

        return self._call(get, absent=None)

    def write(self, name: str, content: Chunks) -> None:
        body = content[0] if len(content) == 1 else b"".join(content)
        self._call(lambda s3: s3.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=bytes(body)))

    def create(self, name: str, content: bytes) -> bool:
        # A single put: completing a multipart upload ignores the condition.
        key = self.prefix + name

        def put(s3: Any) -> bool:
            s3.put_object(Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*")
            return True

        return self._call(put, precondition_failed=False)

    def size(self, name: str) -> int | None:
        def head(s3: Any) -> int:
            return int(s3.head_object(Bucket=self.bucket, Key=self.prefix + name)["ContentLength"])

        return self._call(head, absent=None)

    def folders(self) -> list[str]:
        pages = self._pages(Prefix=self.prefix, Delimiter="/")
        return [common["Prefix"][len(self.prefix) : -1] for page in pages for common in page.get("CommonPrefixes", ())]

    def entries(self, folder: str) -> list[Entry]:
        prefix = f"{self.prefix}{folder}/"
        first = next(self._pages(Prefix=prefix))
        if not first.get("IsTruncated"):
            return self._entries(first)
        # The requests of one listing are sequential: large listings are split by first digit and run in parallel.
        below = [{"Prefix": prefix + digit} for digit in _DIGITS]
        rest = {"Prefix": prefix, "StartAfter": f"{prefix}g"}
        with ThreadPoolExecutor(self.parallel_calls, "list") as pool:
            parts = pool.map(lambda where: [self._entries(page) for page in self._pages(**where)], [*below, rest])
        return list(itertools.chain.from_iterable(itertools.chain.from_iterable(parts)))

    def delete(self, names: Iterable[str]) -> None:
        keys = [{"Key": self.prefix + name} for name in names]
        for start in range(0, len(keys), _KEYS):
            some = {"Objects": keys[start : start + _KEYS], "Quiet": True}
            self._call(_request("delete_objects", Bucket=self.bucket, Delete=some), forbidden=None)

    def view(self, name: str, size: int) -> Ranges:
        if not size:
            raise ObjectMissing("it has 0 bytes")
        return Ranges(self, name, size, self.cache.open(name, size))

    def chunks(self, name: str) -> Iterator[bytes]:
        size = self.size(name)
        if size is None:
            raise ObjectMissing("its data is missing")
        for start in range(0, size, _PIECE):
            yield self.part(name, (start, min(start + _PIECE, size)), size)

    def part(self, name: str, span: Span, size: int) -> bytes:
        """A range of an object of `size` bytes.

        Raises:
            ObjectMissing: it does not exist or has another size.
        """

        def get(s3: Any) -> tuple[bytes, str]:
            answer = s3.get_object(Bucket=self.bucket, Key=self.prefix + name, Range=f"bytes={span[0]}-{span[1] - 1}")
            return answer["Body"].read(), answer["ContentRange"].rpartition("/")[2]

        content, total = self._call(get, absent=(b"", "0"), out_of_range=(b"", "fewer"))
        if total != str(size):
            raise ObjectMissing("its data is missing" if total == "0" else f"it has {total} bytes instead of {size}")
        return content

    def _pages(self, **where: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self._call(_request("list_objects_v2", Bucket=self.bucket, MaxKeys=_KEYS, **where, **more))
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _entries(self, page: dict[str, Any]) -> list[Entry]:
        date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
        start = len(self.prefix)
        return [
            Entry(item["Key"][start:], item["Size"], now - item["LastModified"].timestamp())
            for item in page.get("Contents", ())
        ]

    def _call(self, request: Callable[[Any], T], **answers: T) -> T:
        """Make a request with retries; `answers` are the results that stand for expected refusals."""
        from flows.runtime import s3

        def attempt() -> T:
            with s3.explained():
                return request(self._connected())

        retrying = _retrying()
        try:
            return retrying(attempt)
        except Transient as error:
            attempts = retrying.statistics["attempt_number"]
            raise ServiceUnavailable(
                f"the embedding store {self.location} does not answer, {attempts} attempts were made ({error}); run "
                "'samif run' again when the server answers; committed shards are kept"
            ) from error
        except s3.Refused as error:
            meaning = _meaning(error)
            if meaning in answers:
                return answers[meaning]
            raise ServiceUnavailable(
                f"the embedding store {self.location} cannot be used: {error}; correct 'embed.store' in params.yaml, "
                "AWS_ENDPOINT_URL or the credentials"
            ) from error
        except s3.Unusable as error:
            raise ServiceUnavailable(
                f"the embedding store {self.location} cannot be used: {error}; set AWS_ENDPOINT_URL and the "
                "credentials of the S3 server in the environment"
            ) from error

    def _connected(self) -> Any:
        from flows.runtime import s3

        with self._lock:
            if self._client is None or self._client[0] != os.getpid():  # after a fork the connections are the parent's
                self._client = (os.getpid(), s3.client(self.parallel_calls))
            return self._client[1]


class Ranges:
    """An object of a bucket, of which some parts are cached on this machine."""

    def __init__(self, bucket: Bucket, name: str, size: int, parts: Parts) -> None:
        self._bucket, self._name, self._size, self._parts = bucket, name, size, parts

    @property
    def memory(self) -> memoryview:
        return memoryview(self._parts.map)

    def fill(self, spans: Sequence[Span]) -> None:
        pieces = list(_pieces(spans))
        if len(pieces) == 1:
            self._fetch(pieces[0])
            return
        with ThreadPoolExecutor(_PIECES, "fetch") as pool:
            list(pool.map(self._fetch, pieces))

    def _fetch(self, span: Span) -> None:
        self._parts.write(span[0], self._bucket.part(self._name, span, self._size))


def _pieces(spans: Sequence[Span]) -> Iterator[Span]:
    """The ranges to request: near spans are joined, long ones are split."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= _GAP:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    for start, end in joined:
        for piece in range(start, end, _PIECE):
            yield piece, min(piece + _PIECE, end)


def _request(name: str, **arguments: Any) -> Callable[[Any], Any]:
    return lambda s3: getattr(s3, name)(**arguments)


def _meaning(error: Refused) -> str:
    if error.status == 404 and error.code != "NoSuchBucket":
        return "absent"
    return {412: "precondition_failed", 416: "out_of_range", 403: "forbidden"}.get(error.status, error.code)


def _retrying() -> Retrying:
    told = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return retry_times(max(1, int(told))) if told.isdecimal() else retry_for()
