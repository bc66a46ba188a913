"""Files by path or address: file://, http(s):// or s3://.

S3 takes endpoint and credentials from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from flows.runtime.retry import Transient
from samif.errors import ConfigError, ObjectMissing, ServiceUnavailable
from samif.io.address import shown

if TYPE_CHECKING:
    from fsspec.callbacks import Callback

Progress = Callable[[int, int | None], None]
"""Called with bytes done and bytes in all (None if unknown)."""

_TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds between two chunks


def is_remote(uri: str) -> bool:
    """Whether `uri` is a network address.

    Raises:
        ConfigError: no address, or of a kind that cannot be read.
    """
    try:
        scheme = urlsplit(uri).scheme if "://" in uri else "file"
    except ValueError as error:
        raise ConfigError(f"'{uri}' is no address ({error}); correct it") from error
    if scheme not in ("file", "http", "https", "s3"):
        raise ConfigError(f"{shown(uri)}: give a path, file://, http(s):// or s3:// address, not {scheme}://")
    return scheme != "file"


def local_path(uri: str) -> Path:
    """The file that a path or a file:// address names."""
    return Path(url2pathname(urlsplit(uri).path) if "://" in uri else uri).expanduser()


def suffix_of(uri: str) -> str:
    """Suffix of the file's name, such as `.pth`, without the query of an address."""
    return PurePosixPath(unquote(urlsplit(uri).path) if "://" in uri else uri).suffix


def download(uri: str, target: Path, progress: Progress | None = None) -> None:
    """Copy the file behind `uri` to `target` in one attempt, by fsspec; the caller retries.

    Args:
        progress: called with bytes done and bytes in all.

    Raises:
        ObjectMissing: there is no such file.
        ServiceUnavailable: the server refuses the request or the credentials, or no request can be made.
        Transient: network or server failed.
        OSError: `target` cannot be written.
    """
    from aiohttp import ClientError, ClientResponseError
    from botocore.exceptions import BotoCoreError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnection
    from fsspec.core import url_to_fs

    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    try:
        # A new instance: a cached one keeps the environment's endpoint and credentials of the first call.
        fs, path = url_to_fs(uri, skip_instance_cache=True, **_options(scheme))
        fs.get_file(path, str(target), callback=_callback(progress))
    except FileNotFoundError as error:
        raise ObjectMissing(f"{shown(uri)}: there is no such file; correct the address") from error
    except ClientResponseError as error:
        if error.status == 429 or error.status >= 500:
            raise Transient(f"the server answers {error.status}") from error
        raise ServiceUnavailable(f"{shown(uri)}: the server answers {error.status}; correct the address") from error
    except (HTTPClientError, NoConnection, ConnectionError, TimeoutError, ClientError) as error:
        raise Transient(type(error).__name__) from error
    except (PermissionError, BotoCoreError, ValueError) as error:
        raise ServiceUnavailable(
            f"{shown(uri)}: {_reason(error)}; correct the address, the endpoint or the credentials"
        ) from error
    except OSError as error:
        if scheme == "s3" and error.__cause__ is not None:  # s3fs: an answer that has no class of its own
            raise Transient(_reason(error)) from error
        raise


def _reason(error: Exception) -> str:
    """S3's error code if there is one: some servers send no message."""
    answer = getattr(error.__cause__, "response", None) or {}
    code = answer.get("Error", {}).get("Code")
    return f"the server answers {code}" if code else shown(" ".join(str(error).split()))


def _options(scheme: str) -> dict[str, Any]:
    connect, read = _TIMEOUT
    if scheme == "s3":
        retries = {"total_max_attempts": 1}  # the caller retries
        config = {"connect_timeout": connect, "read_timeout": read, "retries": retries}
        # Older servers do not know the trailers that newer clients ask for by default.
        return {"config_kwargs": config | {"response_checksum_validation": "when_required"}}
    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        # trust_env: credentials of ~/.netrc and proxies, as other tools use them.
        return {
            "client_kwargs": {"timeout": ClientTimeout(None, sock_connect=connect, sock_read=read), "trust_env": True}
        }
    return {}


def _callback(progress: Progress | None) -> Callback:
    from fsspec.callbacks import Callback

    reported = 0

    def report(size: int | None, value: int, **_: Any) -> None:
        nonlocal reported
        if progress is not None and value > reported:
            progress(value, size)
        reported = value

    return Callback(hooks={"progress": report})
