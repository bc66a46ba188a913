"""A classifier version as it is put into MLflow: its run, the model that the run logs, and what people read of both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.registry.mlflow_model import write_model
from flows.registry.run_entry import DatasetRecord, Entry, ModelFolder
from flows.registry.version_record import metrics_of, params_of, tags_of
from flows.registry.version_text import describe_classifiers, describe_decoder, describe_version
from flows.runtime.cost import Cost, total
from samif.config import load_params
from samif.evaluate.model import Evaluation
from samif.versions.card import Card

FOR_PEOPLE = ("images", "figures")
"""Folders of files for people: they lie with the run, all others with the model."""


def version_entry(
    card: Card,
    files: Mapping[str, Path],
    decoder_version: int,
    evaluation: Evaluation,
    session: dict[str, Any],
    example: Path | None,
    costs: Mapping[str, Cost] | None = None,
) -> Entry:
    """What to register; arguments as of `Registry.register_classifier`, evaluation and session as the files hold them.

    The run lasts as long as the session and its evaluation did.
    """

    def write(stage: Path, _run_id: str) -> None:
        _copy({name: path for name, path in files.items() if _is_for_people(name)}, stage)

    def write_files(stage: Path, run_id: str, model_id: str) -> None:
        _copy({name: path for name, path in files.items() if not _is_for_people(name)}, stage)
        provenance = card.provenance.model_copy(update={"mlflow_run": run_id})
        card.model_copy(update={"provenance": provenance}).save(stage / "card.json")
        write_model(stage, card, run_id, model_id, example)

    provenance = card.provenance
    seconds = {"session": float(session.get("seconds") or 0.0), "evaluate": evaluation.seconds}
    spent = {f"cost/{part}.{name}": v for part, cost in (costs or {}).items() for name, v in cost.numbers.items()}
    seconds |= {part: cost.wall_seconds for part, cost in (costs or {}).items() if part in seconds}
    known = {
        "mlflow.user": provenance.who,
        "mlflow.source.name": "samif run",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": (provenance.commit or "").removesuffix("+changes"),
    }
    about = {key: value for key, value in known.items() if value}
    return Entry(
        line=card.line,
        kind="classifier",
        run_name=card.name,
        key="card_digest",
        tags=tags_of(card, decoder_version),
        write=write,
        params=params_of(card, session, load_params(files["params.yaml"]) if "params.yaml" in files else None),
        metrics=metrics_of(evaluation) | {f"seconds/{part}": value for part, value in seconds.items()} | spent,
        description=describe_version(card, session, evaluation, total((costs or {}).values())),
        about=about,
        model_description=describe_classifiers(card.line),
        model_folder=ModelFolder(f"{card.line}-{card.name}", write_files),
        dataset=DatasetRecord(
            name=f"{card.line} validation",
            digest=evaluation.dataset,
            source={"samif.line": card.line, "samif.data_revision": provenance.data_revision or "-"} | about,
            profile={
                "images": evaluation.images,
                "objects": sum(score.instances for score in evaluation.per_class.values()),
                "classes": len(evaluation.per_class),
            },
        ),
        began=provenance.created - timedelta(seconds=sum(seconds.values())),
        ended=provenance.created,
    )


def decoder_entry(line: str, folder: Path, sha256: str, who: str, cost: Cost | None = None) -> Entry:
    """The frozen decoder of a folder, with the files beside it; its run lasts as long as its finetuning did.

    Args:
        who: who asked for it; empty where that is not known.
    """
    training = _training(folder / "training.json")
    quality = {
        f"{when}/{key}": float(value)
        for when, values in training.get("quality", {}).items()
        for key, value in values.items()
        if value is not None
    }
    curve = training.get("curve", [])
    ended = datetime.now(UTC)
    seconds = float(training.get("seconds", 0.0))
    if cost is not None:
        quality |= {f"cost/finetune.{name}": value for name, value in cost.numbers.items()}
        ended, seconds = cost.ended, cost.wall_seconds
    about = {"mlflow.source.name": "samif run", "mlflow.source.type": "JOB"} | ({"mlflow.user": who} if who else {})
    return Entry(
        line=line,
        kind="decoder",
        run_name="decoder",
        key="decoder_sha256",
        tags={"decoder_sha256": sha256},
        write=lambda stage, _run_id: _copy({path.name: path for path in folder.iterdir() if path.is_file()}, stage),
        params={key: str(training[key]) for key in ("classes", "steps", "kept") if key in training},
        metrics=quality,
        series={
            name: [(int(row["step"]), float(row[name])) for row in curve] for name in ("loss", "mask_iou") if curve
        },
        description=describe_decoder(line, training),
        about=about,
        began=ended - timedelta(seconds=seconds),
        ended=ended,
    )


def _training(path: Path) -> dict[str, Any]:
    """The record of a finetuning; empty where it cannot be read, as the decoder is registered without it too."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def _is_for_people(name: str) -> bool:
    return name.split("/")[0] in FOR_PEOPLE


def _copy(files: Mapping[str, Path], stage: Path) -> None:
    for name, path in files.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, stage / name)
