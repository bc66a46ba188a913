"""An MLflow tracking store and model registry, opened safely and answering failures in one sentence.

Knows how versions are kept, not what they mean: that is `flows.registry`, the only user of this module.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from samif.errors import SamifError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

PROBE_SECONDS = 3.0
LOCK_SECONDS = 300.0
METRICS_PER_CALL = 1000  # MLflow refuses longer batches
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # whatever fails also raises
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Registration:
    """A registered version; `created` is false where the same content already had one."""

    version: int
    created: bool
    run_id: str


@dataclass(frozen=True)
class Entry:
    """A version to be: the tag `key` of `tags` holds the digest that makes it unique in its model.

    `write(folder, run_id)` puts the version's files into an empty folder.
    """

    line: str
    kind: str
    run_name: str
    key: str
    tags: dict[str, str]
    write: Callable[[Path, str], None]
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    description: str | None = None

    @property
    def model(self) -> str:
        return f"{self.line}-{self.kind}"


class MlflowStore:
    """One MLflow server, or one SQLite file with its artifacts (`mlartifacts/`) and its lock beside it.

    Args:
        uri: `http(s)://...` or `sqlite:///FILE`, FILE relative to `root`; none means `<root>/.samif/mlflow.db`.
        root: the workspace.

    Raises:
        SamifError: another kind of address; later, from every method, that the store does not answer.
    """

    def __init__(self, uri: str | None, root: Path) -> None:
        root = root.absolute()
        uri = uri or f"sqlite:///{root / '.samif' / 'mlflow.db'}"
        self.database: Path | None = None
        if uri.startswith("sqlite:///"):
            self.database = root / uri.removeprefix("sqlite:///")
            uri = f"sqlite:///{self.database}"
        self.uri = uri
        self.shown = _without_credentials(uri)
        if self.database is None and urlsplit(uri).scheme not in ("http", "https"):
            raise SamifError(f"registry.tracking_uri: expected http(s)://HOST or sqlite:///FILE, got '{self.shown}'")
        state = self.database.parent if self.database else root / ".samif"
        self._lock = FileLock(state / "registry.lock", timeout=LOCK_SECONDS)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around calls that only read; does not make a missing SQLite store."""
        if self.database is not None and not self.database.exists():
            raise SamifError(f"there is no registry at {self.database} yet; run 'samif run' to register a version")
        with self._sentences():
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around calls that write: one writer per SQLite file, or per workspace on a server."""
        path = Path(self._lock.lock_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise SamifError(
                f"another registration has held {path} for {LOCK_SECONDS:.0f} s; wait for it or end it, and run again"
            ) from None
        try:
            with self._sentences():
                yield
        finally:
            self._lock.release()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        _ = self.client  # sets up MLflow before anything of it is imported
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:  # errors of `requests` are OSErrors
            if self.database is None:
                _probe(self.uri, self.shown)
            said = _first_line(error).replace(self.uri, self.shown)
            raise SamifError(
                f"the registry at {self.shown} refused or broke off: {said}; mend that and run again"
            ) from None

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client; use it inside `reading` or `writing`."""
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        if self.database is None:
            _probe(self.uri, self.shown)
        elif self.database.exists() and not _is_sqlite(self.database):
            # SQLAlchemy would retry for minutes.
            raise SamifError(f"{self.database} is not an SQLite file; move it away or restore it from a backup")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every retry
        try:
            if self.database is not None and not self.database.exists():
                # Killed in its first migration, an SQLite store stays unusable: make it under another name.
                part = self.database.with_name(f".{self.database.name}.part")
                part.unlink(missing_ok=True)
                part.with_name(f"{part.name}-journal").unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{part}")
                os.replace(part, self.database)
            return MlflowClient(self.uri, self.uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise SamifError(
                f"the registry at {self.shown} cannot be opened: {_first_line(error)}; restore it from a backup"
            ) from None

    def register(self, entry: Entry) -> Registration:
        """Find the version that has the entry's digest, else make its run and then the version.

        A run without a version (a crash in between) is filled again and used. Call inside `writing`.
        """
        from mlflow.entities import Metric, Param, RunTag

        mine = f"tags.{entry.key} = '{entry.tags[entry.key]}'"
        found = self.client.search_model_versions(f"name = '{entry.model}' and {mine}")
        if found:
            oldest = min(found, key=lambda item: int(item.version))
            return Registration(int(oldest.version), False, str(oldest.run_id))
        run = next(self.runs(entry.line, f"tags.kind = '{entry.kind}' and {mine}"), None)
        if run is None:
            identity = {"kind": entry.kind, entry.key: entry.tags[entry.key]}
            run = self.client.create_run(self._experiment(entry.line), tags=identity, run_name=entry.run_name)
        run_id = str(run.info.run_id)
        now = int(datetime.now(UTC).timestamp() * 1000)
        points = [Metric(name, value, now, 0) for name, value in entry.metrics.items()]
        params = [Param(name, value) for name, value in entry.params.items()]
        self.client.log_batch(run_id, params=params, tags=[RunTag(name, value) for name, value in entry.tags.items()])
        for start in range(0, len(points), METRICS_PER_CALL):
            self.client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])
        with tempfile.TemporaryDirectory() as folder:
            entry.write(Path(folder), run_id)
            self._files(run).log_artifacts(folder)
        self.client.set_terminated(run_id, "FINISHED")
        if self.find_model(entry.model) is None:
            _unless_exists(self.client.create_registered_model, entry.model)
        made = self.client.create_model_version(
            entry.model,
            self._files_uri(run),
            run_id,
            tags=entry.tags,
            description=entry.description,
            await_creation_for=0,
        )
        return Registration(int(made.version), True, run_id)

    def runs(self, line: str, where: str = "") -> Iterator[Run]:
        """The runs of a line, newest first; `where` is an MLflow search filter."""
        experiment, token = self.client.get_experiment_by_name(line), None
        while experiment is not None:
            page = self.client.search_runs([experiment.experiment_id], where, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def fetch(self, version: ModelVersion, path: str, folder: Path) -> Path:
        """Download one file of a version into a folder."""
        return Path(self._files(self._run(version)).download_artifacts(path, str(folder)))

    def paths(self, version: ModelVersion) -> list[str]:
        """Artifact paths of all files of a version."""
        files = self._files(self._run(version))
        folders, found = [""], list[str]()
        while folders:
            for item in files.list_artifacts(folders.pop() or None):
                (folders if item.is_dir else found).append(item.path)
        return sorted(found)

    def metrics(self, version: ModelVersion) -> dict[str, float]:
        """The metrics of a version's run."""
        return dict(self._run(version).data.metrics)

    def find_model(self, name: str) -> RegisteredModel | None:
        """The registered model called `name` with its aliases, or none."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def model(self, name: str) -> RegisteredModel:
        """As `find_model`, but an unknown name is a SamifError that lists the known ones."""
        model = self.find_model(name)
        if model is None:
            known = ", ".join(item.name for item in self.client.search_registered_models()) or "nothing"
            raise SamifError(f"the registry at {self.shown} has no '{name}' (it has: {known}); check the name")
        return model

    def versions(self, name: str) -> dict[int, ModelVersion]:
        """Version number -> version of a model, oldest first. MLflow leaves the aliases out here."""
        found = self.client.search_model_versions(f"name = '{self.model(name).name}'")
        return {int(item.version): item for item in sorted(found, key=lambda item: int(item.version))}

    def version(self, name: str, number: int) -> ModelVersion:
        """One version; an unknown number is a SamifError that lists the known ones."""
        found = self.versions(name)
        if number not in found:
            known = ", ".join(map(str, found)) or "none"
            raise SamifError(f"{name} has no version {number} (it has: {known}); see 'samif registry list'")
        return found[number]

    def _run(self, version: ModelVersion) -> Run:
        if not version.run_id:
            raise SamifError(f"{version.name}/{version.version} has no run; it was not registered by samif")
        return self.client.get_run(str(version.run_id))

    def _experiment(self, line: str) -> str:
        if self.client.get_experiment_by_name(line) is None:
            location = self._local_files.as_uri() if self._local_files else None
            _unless_exists(self.client.create_experiment, line, location)
        experiment = self.client.get_experiment_by_name(line)
        assert experiment is not None
        return str(experiment.experiment_id)

    def _files(self, run: Run) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._files_uri(run), tracking_uri=self.uri)

    @property
    def _local_files(self) -> Path | None:
        return self.database.parent / "mlartifacts" if self.database else None

    def _files_uri(self, run: Run) -> str:
        # The SQLite store remembers absolute paths, which are false once a workspace has been moved.
        if self._local_files is None:
            return str(run.info.artifact_uri)
        return (self._local_files / str(run.info.run_id) / "artifacts").as_uri()


def _probe(uri: str, shown: str) -> None:
    """Fail in seconds where MLflow's own retries would take minutes."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS)
    except requests.RequestException:
        raise SamifError(
            f"the registry at {shown} does not answer; start it, or mend registry.tracking_uri in params.yaml"
        ) from None


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else uri


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _unless_exists(create: Callable[..., Any], *arguments: Any) -> None:
    """Another machine may have made the same thing since we looked."""
    from mlflow.exceptions import MlflowException

    try:
        create(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
