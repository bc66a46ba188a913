"""Opening an MLflow client: settings before the first import, which failures may pass, and a first migration of SQLite
that may be killed."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flows.runtime.retry import RETRY_SECONDS, Transient
from samif.errors import IntegrityError, ServiceUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_SECONDS = 3.0
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow would send a lost request once more, and so make a second version where only the answer was lost.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # Longer than we retry, so that a request is not sent again while a hanging server still works on it.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{1.5 * RETRY_SECONDS:.0f}",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # whatever fails also raises
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else it copies files of the current folder into a model
}

MAY_PASS = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
"""MLflow's codes for a server, or a database or bucket behind it, that is unavailable."""


class RegistryUnavailable(ServiceUnavailable, Transient):
    """The registry, or what stands behind it, does not answer."""


def open_client(uri: str, shown: str, database: Path | None) -> MlflowClient:
    """MLflow's client for a server, or for an SQLite file, which is made where it does not exist.

    Args:
        shown: the address without credentials, for sentences.
        database: the SQLite file of `uri`; none for a server.

    Raises:
        RegistryUnavailable: the server does not answer.
        IntegrityError: the file is no database.
        ServiceUnavailable: it cannot be opened.
    """
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if database is None:
        probe(uri, shown)
    elif database.exists() and not _is_sqlite(database):
        # SQLAlchemy would retry for minutes.
        raise IntegrityError(f"{database} is not an SQLite file; move it away or restore it from a backup")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # MLflow reads the variable when it is imported, which may have been before.
    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every retry
    try:
        if database is not None and not database.exists():
            # Killed in its first migration, an SQLite store stays unusable: make it under another name.
            part = database.with_name(f".{database.name}.part")
            part.unlink(missing_ok=True)
            part.with_name(f"{part.name}-journal").unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{part}")
            os.replace(part, database)
        return MlflowClient(uri, uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise ServiceUnavailable(
            f"the registry at {shown} cannot be opened: {first_line(error)}; restore it from a backup"
        ) from None


def probe(uri: str, shown: str) -> None:
    """Raise RegistryUnavailable, in seconds, where the server does not answer."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS)
    except requests.RequestException:
        raise RegistryUnavailable(
            f"the registry at {shown} does not answer; start it, or correct registry.tracking_uri in params.yaml, and "
            "run the same command again; finished stages are kept"
        ) from None


def may_pass(error: Exception) -> bool:
    """Whether an error of a server's client is one that a later attempt may not meet."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in MAY_PASS
    if isinstance(error, requests.RequestException):
        return error.response is None or error.response.status_code >= 500
    return False


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
