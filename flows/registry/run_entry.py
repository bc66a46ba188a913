"""What a run in MLflow, and the model that it logs, are to hold; filled again after a crash, nothing twice."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

    from flows.registry.mlflow_store import MlflowStore

METRICS_PER_CALL = 1000  # MLflow refuses longer batches
DIGEST_CHARACTERS = 36  # of a data set in MLflow
FILLED_TAG = "filled"
"""Tag of a run: when it was last filled, as its own times are those of the work."""


@dataclass(frozen=True)
class DatasetRecord:
    """The data set that metrics were measured on."""

    name: str
    digest: str
    source: dict[str, str]
    profile: dict[str, Any]


@dataclass(frozen=True)
class ModelFolder:
    """A model that a run logs: `write(folder, run_id, model_id)` puts its files into an empty folder."""

    name: str
    write: Callable[[Path, str, str], None]


@dataclass(frozen=True)
class Entry:
    """A version to be: the tag `key` of `tags` holds the digest that makes it unique in its registered model.

    Attributes:
        write: `write(folder, run_id)` puts the files of the run into an empty folder.
        series: metric -> its values (step, value) in the course of training.
        description: of the version and of the run, as Markdown.
        about: tags of the run alone, such as MLflow's own.
        model_description: of the registered model, where it is made.
        model_folder: what the version loads; none where its files are those of the run.
        began, ended: when the work was done; none means now.
    """

    line: str
    kind: str
    run_name: str
    key: str
    tags: dict[str, str]
    write: Callable[[Path, str], None]
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    description: str | None = None
    about: dict[str, str] = field(default_factory=dict)
    model_description: str | None = None
    model_folder: ModelFolder | None = None
    dataset: DatasetRecord | None = None
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def model(self) -> str:
        return f"{self.line}-{self.kind}"

    @property
    def mine(self) -> str:
        """MLflow search filter for what has the entry's digest."""
        return f"tags.{self.key} = '{self.tags[self.key]}'"


@dataclass(frozen=True)
class Filled:
    """A run with everything of its entry, and the model that it logged, if it did."""

    run: Run
    model: LoggedModel | None


def fill_run(store: MlflowStore, entry: Entry) -> Filled:
    """Find the run of an entry, or make it, and put everything into it; call inside `store.writing`."""
    from mlflow.entities import Metric, Param, RunTag

    client = store.client
    run = next(store.runs(entry.line, f"tags.kind = '{entry.kind}' and {entry.mine}"), None)
    if run is None:
        filled = {FILLED_TAG: datetime.now(UTC).isoformat(timespec="seconds")}
        identity = {"kind": entry.kind, entry.key: entry.tags[entry.key]} | entry.about | filled
        run = client.create_run(store.experiment(entry.line), _milliseconds(entry.began), identity, entry.run_name)
    run_id = str(run.info.run_id)
    model = None if entry.model_folder is None else _logged_model(store, run, entry, entry.model_folder)
    of = {} if model is None else {"model_id": model.model_id}
    if entry.dataset is not None:
        _log_dataset(store, run, entry.dataset)
        of |= {"dataset_name": entry.dataset.name, "dataset_digest": entry.dataset.digest[:DIGEST_CHARACTERS]}
    now = int(datetime.now(UTC).timestamp() * 1000)
    points = [Metric(name, value, now, 0, **of) for name, value in entry.metrics.items()]
    # at the time of the run, so that filling it again repeats the same points, which MLflow drops
    points += [
        Metric(name, value, run.info.start_time, step, **of)
        for name, values in entry.series.items()
        for step, value in values
    ]
    tags = _tags(entry) | {FILLED_TAG: datetime.now(UTC).isoformat(timespec="seconds")}
    params = [Param(name, value) for name, value in entry.params.items()]
    client.log_batch(run_id, params=params, tags=[RunTag(name, value) for name, value in tags.items()])
    for start in range(0, len(points), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=points[start : start + METRICS_PER_CALL])
    with tempfile.TemporaryDirectory() as folder:
        entry.write(Path(folder), run_id)
        store.run_files(run).log_artifacts(folder)
    if model is not None and entry.model_folder is not None:
        with tempfile.TemporaryDirectory() as folder:
            entry.model_folder.write(Path(folder), run_id, model.model_id)
            store.model_files(model).log_artifacts(folder)
        client.finalize_logged_model(model.model_id, "READY")
    client.set_terminated(run_id, "FINISHED", _milliseconds(entry.ended))
    return Filled(run, model)


def _logged_model(store: MlflowStore, run: Run, entry: Entry, folder: ModelFolder) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput

    client, run_id = store.client, str(run.info.run_id)
    found = client.search_logged_models([run.info.experiment_id], entry.mine)
    model = next((model for model in found if model.source_run_id == run_id), None)
    if model is None:
        model = client.create_logged_model(
            run.info.experiment_id, folder.name, run_id, _tags(entry), entry.params, model_type=entry.kind
        )
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return model


def _log_dataset(store: MlflowStore, run: Run, record: DatasetRecord) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if run.inputs is not None and run.inputs.dataset_inputs:  # a crash came after this
        return
    dataset = Dataset(
        record.name,
        record.digest[:DIGEST_CHARACTERS],
        "code",  # the source that MLflow has for data which a program made
        json.dumps({"tags": record.source}),
        profile=json.dumps(record.profile),
    )
    store.client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "validation")])])


def _tags(entry: Entry) -> dict[str, str]:
    return entry.tags | entry.about | ({"mlflow.note.content": entry.description} if entry.description else {})


def _milliseconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)
