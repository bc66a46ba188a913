"""Reading bytes from where a person says they are: a path, file://, http(s):// or s3://.

S3 takes endpoint and credentials from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from flows.runtime.retry import Transient
from samif.errors import SamifError
from samif.io.address import shown

Content = tuple[int | None, Iterator[bytes]]
"""Length in bytes, None where the sender does not say, and the bytes in chunks."""

_CHUNK = 1 << 20
_TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds between two chunks


def is_remote(uri: str) -> bool:
    """Whether `uri` lies behind a network; SamifError for a kind of address that cannot be read."""
    try:
        scheme = urlsplit(uri).scheme if "://" in uri else "file"
    except ValueError as error:
        raise SamifError(f"'{uri}' is no address ({error}); correct it") from error
    if scheme not in ("file", "http", "https", "s3"):
        raise SamifError(f"{shown(uri)}: give a path, file://, http(s):// or s3:// address, not {scheme}://")
    return scheme != "file"


def local_path(uri: str) -> Path:
    """The file that a path or a file:// address names."""
    return Path(url2pathname(urlsplit(uri).path) if "://" in uri else uri).expanduser()


def suffix_of(uri: str) -> str:
    """Ending of the file's name with its dot, such as `.pth`, without what follows it in an address."""
    return PurePosixPath(unquote(urlsplit(uri).path) if "://" in uri else uri).suffix


def opened(uri: str) -> AbstractContextManager[Content]:
    """The content behind `uri`; one attempt, the caller repeats it.

    Raises (on entering or while reading):
        SamifError: not there, refused, or no such kind of address.
        Transient: network or server failed.
    """
    if not is_remote(uri):
        return _opened_file(uri)
    return _opened_s3(uri) if uri.startswith("s3://") else _opened_http(uri)


@contextmanager
def _opened_file(uri: str) -> Iterator[Content]:
    path = local_path(uri)
    try:
        file = path.open("rb")
    except OSError as error:
        raise SamifError(f"{path} cannot be read ({error.strerror}); correct the path") from error
    with file:
        yield path.stat().st_size, iter(lambda: file.read(_CHUNK), b"")


@contextmanager
def _opened_http(uri: str) -> Iterator[Content]:
    import requests
    from requests import exceptions

    try:
        with requests.get(uri, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 429 or response.status_code >= 500:
                raise Transient(f"the server answers {response.status_code}")
            if response.status_code != 200:
                raise SamifError(f"{shown(uri)}: the server answers {response.status_code}; correct the address")
            length = response.headers.get("Content-Length")
            yield int(length) if length else None, response.iter_content(_CHUNK)
    except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
        raise Transient(type(error).__name__) from error
    except exceptions.RequestException as error:
        raise SamifError(f"{shown(uri)} cannot be requested ({type(error).__name__}); correct the address") from error


@contextmanager
def _opened_s3(uri: str) -> Iterator[Content]:
    from flows.runtime import s3

    parts = urlsplit(uri)
    try:
        with s3.explained():
            answer = s3.client().get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            yield answer["ContentLength"], answer["Body"].iter_chunks(_CHUNK)
    except s3.Refused as error:
        raise SamifError(f"{shown(uri)}: {error}; correct the address or the credentials") from error
    except s3.Unusable as error:
        raise SamifError(
            f"{shown(uri)} cannot be requested ({error}); correct address, endpoint or credentials"
        ) from error
