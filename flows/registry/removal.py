"""Removal of what MLflow keeps of a version or a run, with the files; begun again after a crash, it goes on.

MLflow marks runs and logged models as deleted and leaves their files; here the files go first, and the version, which
names both, goes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.registry.absent import found
from flows.registry.mlflow_store import MODEL_TAG, MlflowStore, walk

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion


def size_of_version(store: MlflowStore, version: ModelVersion) -> int:
    """Bytes of the files of a version and of its run. Call inside `reading` or `writing`."""
    run, model = _parts(store, version)
    places = [store.run_files(run)] if run is not None else []
    places += [store.model_files(model)] if model is not None else []
    return sum(_size(files) for files in places)


def size_of_run(store: MlflowStore, run: Run) -> int:
    """Bytes of the files of a run. Call inside `reading` or `writing`."""
    return _size(store.run_files(run))


def remove_version(store: MlflowStore, version: ModelVersion) -> None:
    """Remove a version, its logged model and its run. Call inside `writing`."""
    run, model = _parts(store, version)
    if model is not None:
        _remove_model(store, model)
    if run is not None:
        remove_run(store, run)
    store.client.delete_model_version(version.name, str(version.version))


def remove_run(store: MlflowStore, run: Run) -> None:
    """Remove a run, the files of the models that it logged, and its own. Call inside `writing`."""
    for output in run.outputs.model_outputs if run.outputs else []:
        model = found(store.client.get_logged_model, output.model_id)
        if model is not None:
            _remove_model(store, model)
    _remove_files(store.run_files(run))
    if run.info.lifecycle_stage == "active":
        store.client.delete_run(run.info.run_id)


def _remove_model(store: MlflowStore, model: LoggedModel) -> None:
    _remove_files(store.model_files(model))
    store.client.delete_logged_model(model.model_id)


def _remove_files(files: Any) -> None:
    if files.list_artifacts(None):
        files.delete_artifacts()


def _parts(store: MlflowStore, version: ModelVersion) -> tuple[Run | None, LoggedModel | None]:
    model_id = version.tags.get(MODEL_TAG)
    run = found(store.client.get_run, str(version.run_id)) if version.run_id else None
    model = found(store.client.get_logged_model, model_id) if model_id is not None else None
    return run, model


def _size(files: Any) -> int:
    return sum(int(item.file_size or 0) for item in walk(files))
