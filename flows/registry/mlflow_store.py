"""An MLflow tracking store and model registry, opened safely and answering failures in one sentence.

It stores versions; what they mean is decided in `registry`, `journal` and `promotion`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from flows.registry import absent
from flows.registry.mlflow_client import RegistryUnavailable, first_line, may_pass, open_client, probe
from flows.registry.run_entry import Entry, fill_run
from flows.runtime.retry import retry_for
from flows.runtime.system_errors import system_error
from samif.errors import ConfigError, ObjectMissing, ServiceUnavailable
from samif.io.address import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

T = TypeVar("T")

LOCK_SECONDS = 300.0
MODEL_TAG = "model_id"
"""Tag of a version: the logged model that holds its files."""
KIND_TAG = "mlflow.experimentKind"
"""Tag of an experiment: which pages MLflow shows of it."""
REGISTERED_TAG = "last_registered"
"""Tag of a version: when a run last had it, where that was after its first registration."""


@dataclass(frozen=True)
class Registration:
    """A registered version; `created` is false where the same content already had one."""

    version: int
    created: bool
    run_id: str


class MlflowStore:
    """One MLflow server, or one SQLite file with its artifacts (`mlartifacts/`) and its lock beside it.

    Args:
        uri: `http(s)://...` or `sqlite:///FILE`, FILE relative to `root`; none means `<root>/.samif/mlflow.db`.
        root: the workspace.

    Raises:
        ConfigError: another kind of address.
        ServiceUnavailable: from every method, the store does not answer.
    """

    def __init__(self, uri: str | None, root: Path) -> None:
        root = root.absolute()
        uri = uri or f"sqlite:///{root / '.samif' / 'mlflow.db'}"
        self.database: Path | None = None
        if uri.startswith("sqlite:///"):
            self.database = root / uri.removeprefix("sqlite:///")
            uri = f"sqlite:///{self.database}"
        self.uri = uri
        self.shown = shown(uri)
        if self.database is None and urlsplit(uri).scheme not in ("http", "https"):
            raise ConfigError(f"registry.tracking_uri: expected http(s)://HOST or sqlite:///FILE, got '{self.shown}'")
        state = self.database.parent if self.database else root / ".samif"
        self._lock = FileLock(state / "registry.lock", timeout=LOCK_SECONDS)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around calls that only read; does not make a missing SQLite store."""
        if self.database is not None and not self.database.exists():
            raise ObjectMissing(f"there is no registry at {self.database} yet; run 'samif run' to register a version")
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
            raise ServiceUnavailable(
                f"another registration has held {path} for {LOCK_SECONDS:.0f} s; wait for it or end it, and run again"
            ) from None
        try:
            with self._sentences():
                yield
        finally:
            self._lock.release()

    def written(self, write: Callable[[], T]) -> T:
        """What `write` gives, called inside `writing`; again, for a minute, while the server, its database or its
        bucket is away. So it has to find what an attempt before has done."""

        def attempt() -> T:
            with self.writing():
                return write()

        return retry_for()(attempt)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        _ = self.client  # sets up MLflow before anything of it is imported
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:  # errors of `requests` are OSErrors
            if self.database is None:
                probe(self.uri, self.shown)
            elif (known := system_error(error)) is not None:
                raise known from None
            said = first_line(error).replace(self.uri, self.shown)
            if "error code 401" in said:
                raise ServiceUnavailable(
                    f"the registry at {self.shown} does not know you; set MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD, and run again"
                ) from None
            kind = RegistryUnavailable if self.database is None and may_pass(error) else ServiceUnavailable
            raise kind(
                f"the registry at {self.shown} refused or interrupted the request: {said}; correct that and run again"
            ) from None

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client; use it inside `reading` or `writing`."""
        return open_client(self.uri, self.shown, self.database)

    def register(self, entry: Entry) -> Registration:
        """Find the version that has the entry's digest, else make its run and then the version.

        A run without a version (a crash in between) is filled again and used. Call inside `writing`.
        """
        found = self.client.search_model_versions(f"name = '{entry.model}' and {entry.mine}")
        if found:
            oldest = min(found, key=lambda item: int(item.version))
            self._note_registered(oldest)
            return Registration(int(oldest.version), False, str(oldest.run_id))
        filled = fill_run(self, entry)
        self.make_model(entry.model, entry.model_description)
        run_id, model = str(filled.run.info.run_id), filled.model
        made = self.client.create_model_version(
            entry.model,
            self._run_uri(filled.run) if model is None else self._model_uri(model),
            run_id,
            tags=entry.tags | ({MODEL_TAG: model.model_id} if model is not None else {}),
            description=entry.description,
            await_creation_for=0,
            model_id=None if model is None else model.model_id,
        )
        if model is not None and self.database is not None:  # a server does this itself
            named = json.dumps([{"name": entry.model, "version": int(made.version)}])
            self.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": named})
        return Registration(int(made.version), True, run_id)

    def _note_registered(self, version: ModelVersion) -> None:
        """Say when a version was last registered again, to half a day: see `retention`."""
        now = datetime.now(UTC)
        noted = version.tags.get(REGISTERED_TAG)
        if noted is None or now - datetime.fromisoformat(noted) > timedelta(hours=12):
            at = now.isoformat(timespec="seconds")
            self.client.set_model_version_tag(version.name, version.version, REGISTERED_TAG, at)

    def record(self, entry: Entry) -> str:
        """Find the finished run that has the entry's digest, else make it; returns its id. Call inside `writing`."""
        done = self.runs(entry.line, f"tags.kind = '{entry.kind}' and {entry.mine} and attributes.status = 'FINISHED'")
        found = next(done, None)
        return self.replace(entry) if found is None else str(found.info.run_id)

    def replace(self, entry: Entry) -> str:
        """As `record`, but what a run with the entry's digest held is written over. Call inside `writing`."""
        return str(fill_run(self, entry).run.info.run_id)

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
        return Path(self._version_files(version).download_artifacts(path, str(folder)))

    def paths(self, version: ModelVersion) -> list[str]:
        """Artifact paths of all files of a version and of its run."""
        places = [self._version_files(version), self.run_files(self._run(version))]
        return sorted({item.path for files in places for item in walk(files)})

    def fetch_all(self, version: ModelVersion, names: Iterable[str], folder: Path) -> set[str]:
        """Download those of these files that a version has; returns which."""
        there = set(self.paths(version)) & set(names)
        for name in there:
            self.fetch(version, name, folder)
        return there

    def fetch_run(self, run: Run, folder: Path) -> set[str]:
        """Download the files of a run that lie in no folder; their names."""
        files = self.run_files(run)
        names = {item.path for item in files.list_artifacts(None) if not item.is_dir}
        for name in names:
            files.download_artifacts(name, str(folder))
        return names

    def is_deleted(self, version: ModelVersion) -> bool:
        """Whether the run of a version was deleted, and can still be restored."""
        return bool(self._run(version).info.lifecycle_stage == "deleted")

    def metrics(self, version: ModelVersion) -> dict[str, float]:
        """The metrics of a version's run."""
        return dict(self._run(version).data.metrics)

    def find_model(self, name: str) -> RegisteredModel | None:
        """The registered model called `name` with its aliases, or none."""
        return absent.found(self.client.get_registered_model, name)

    def model(self, name: str) -> RegisteredModel:
        """As `find_model`, but an unknown name is an ObjectMissing that lists the known ones."""
        model = self.find_model(name)
        if model is None:
            raise absent.no_model(self, name)
        return model

    def make_model(self, name: str, description: str | None = None) -> None:
        """Create the registered model `name`, unless it is there. Call inside `writing`."""
        if self.find_model(name) is None:
            make_once(self.client.create_registered_model, name, None, description)

    def versions(self, name: str) -> dict[int, ModelVersion]:
        """Version number -> version of a model, oldest first. MLflow leaves the aliases out here."""
        return self.find_versions(self.model(name).name)

    def find_versions(self, name: str) -> dict[int, ModelVersion]:
        """As `versions`; nothing where there is no such model."""
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return {int(item.version): item for item in sorted(found, key=lambda item: int(item.version))}

    def version(self, name: str, number: int) -> ModelVersion:
        """One version; an unknown number is an ObjectMissing that lists the known ones."""
        found = self.versions(name)
        if number not in found:
            known = ", ".join(map(str, found)) or "none"
            raise ObjectMissing(f"{name} has no version {number} (it has: {known}); see 'samif registry list'")
        return found[number]

    def _run(self, version: ModelVersion) -> Run:
        if not version.run_id:
            raise ObjectMissing(f"{version.name}/{version.version} has no run; it was not registered by samif")
        run = absent.found(self.client.get_run, str(version.run_id))
        if run is None:
            raise absent.gone(version, "run")
        return run

    def experiment(self, line: str) -> str:
        """Id of the line's experiment, made where there is none. Call inside `writing`."""
        if self.client.get_experiment_by_name(line) is None:
            location = self._local_files.as_uri() if self._local_files else None
            make_once(self.client.create_experiment, line, location, {KIND_TAG: "custom_model_development"})
        experiment = self.client.get_experiment_by_name(line)
        assert experiment is not None
        return str(experiment.experiment_id)

    def run_files(self, run: Run) -> Any:
        """MLflow's access to the files of a run."""
        return self._files(self._run_uri(run))

    def model_files(self, model: LoggedModel) -> Any:
        """MLflow's access to the files of a logged model."""
        return self._files(self._model_uri(model))

    def _version_files(self, version: ModelVersion) -> Any:
        """Those of the logged model that a version was made from; versions of earlier releases lie in their run."""
        model_id = version.tags.get(MODEL_TAG)
        if model_id is None:
            return self.run_files(self._run(version))
        model = absent.found(self.client.get_logged_model, model_id)
        if model is None:
            raise absent.gone(version, "logged model")
        return self.model_files(model)

    def _files(self, uri: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(uri, tracking_uri=self.uri)

    @property
    def _local_files(self) -> Path | None:
        return self.database.parent / "mlartifacts" if self.database else None

    # The SQLite store remembers absolute paths, which are false once a workspace has been moved.

    def _run_uri(self, run: Run) -> str:
        if self._local_files is None:
            return str(run.info.artifact_uri)
        return (self._local_files / str(run.info.run_id) / "artifacts").as_uri()

    def _model_uri(self, model: LoggedModel) -> str:
        if self._local_files is None:
            return str(model.artifact_location)
        return (self._local_files / "models" / model.model_id / "artifacts").as_uri()


def walk(files: Any) -> Iterator[FileInfo]:
    """The files of an artifact repository, with their sizes."""
    folders: list[str | None] = [None]
    while folders:
        for item in files.list_artifacts(folders.pop()):
            if item.is_dir:
                folders.append(item.path)
            else:
                yield item


def make_once(create: Callable[..., Any], *arguments: Any) -> None:
    """Create what has a unique name, unless it exists: another process may have created it meanwhile."""
    from mlflow.exceptions import MlflowException

    try:
        create(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
