"""S3 client of boto3 and the translation of its errors. Endpoint and credentials come from the environment
(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the like) or from the machine's role; none of them is written to a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore import exceptions

from flows.runtime.retry import Transient

_TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds between two chunks


class Refused(Exception):
    """The server refuses the request; `code` is S3's error code."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"the server answers {code}")
        self.code, self.status = code, status


class Unusable(Exception):
    """No request can be made: no credentials, unknown region, malformed endpoint."""


def client(connections: int = 10) -> Any:
    """A client that makes one attempt per call, for any number of threads (`connections` of them at once)."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=_TIMEOUT[0],
        read_timeout=_TIMEOUT[1],
        retries={"total_max_attempts": 1},  # `flows.runtime.retry` retries, also if a body is cut off
        max_pool_connections=connections,
        # The store has its own checksums; older servers do not know the trailers that newer clients send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with explained():
        # A new session: the module's default one is not thread-safe.
        return boto3.session.Session().client("s3", config=config)


@contextmanager
def explained() -> Iterator[None]:
    """Translate errors of boto3 inside to Transient, Refused or Unusable."""
    try:
        yield
    except exceptions.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(error.response.get("Error", {}).get("Code", status))
        # 409 to a conditional put: another writer of the same name is at work.
        if status in (409, 429) or status >= 500:
            raise Transient(f"the server answers {code}") from error
        raise Refused(code, status) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError) as error:
        raise Transient(type(error).__name__) from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise Unusable(str(error)) from error
