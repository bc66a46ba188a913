"""The report stage: gather what the other stages found into `artifacts/report`, the same bytes for the same input, and
what DVC shows of them into `artifacts/metrics.json` and `artifacts/plots`.

`summary.json` is the contract that other people's scripts read; `page.json` is what the page needs beyond it.
Versions are not known yet (registration stands outside the graph) and stay null until `publish`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.quarantine import Quarantine
from flows.loaders.inputs import dataset_of
from flows.report.dvc_metrics import summary_metrics, write_metrics
from flows.report.dvc_plots import write_plots
from flows.report.figures import write_figures
from flows.report.images import choose, render
from flows.workspace.layout import Layout
from samif.config import BASE, Params, digest
from samif.dataset.model import Dataset
from samif.errors import IntegrityError, ObjectMissing
from samif.evaluate.matching import KINDS, match_all
from samif.evaluate.model import Evaluation
from samif.io.hashing import file_sha256

IMAGES_PER_KIND = 4


def collect(layout: Layout, params: Params) -> None:
    """Write `layout.report`: summary.json, page.json, images/NAME/ and figures/NAME/; the folder is replaced whole.
    Then write `layout.summary_metrics` and `layout.plots`.

    Raises:
        ObjectMissing: an input of the stage is missing.
        IntegrityError: an input is damaged, or an evaluation is of other images.
    """
    val, train = (dataset_of(layout, params, split) for split in ("val", "train"))
    names = [BASE, *params.sessions]
    evaluations = {name: Evaluation.load(layout.evaluation(name) / "evaluation.json") for name in names}
    for name, evaluation in evaluations.items():
        if evaluation.dataset != val.digest:
            raise IntegrityError(f"the evaluation of '{name}' is of other validation images; run 'samif run' again")
    encoder = EmbeddingManifest.load(layout.embeddings).encoder
    decoder = read_json(layout.decoder / "training.json")
    summary = {
        "schema": 1,
        "dataset": {
            "digest": digest({"train": train.digest, "val": val.digest}),
            "train_images": len(train.images),
            "val_images": len(val.images),
            **({} if params.dataset.protocol is None else {"protocol": params.dataset.protocol}),
        },
        "encoder": {"name": encoder.name, "digest": encoder.digest},
        "decoder": {"sha256": file_sha256(layout.decoder / "decoder.safetensors"), "version": None},
        "pretrain_classes": decoder["classes"],
        "base": _entry(layout, params, evaluations[BASE]),
        "sessions": [_entry(layout, params, evaluations[name]) for name in params.sessions],
    }
    part = layout.report.with_name(f".{layout.report.name}.{os.getpid()}")
    try:
        for name in names:
            write_figures(part / "figures" / name, evaluations[name])
        shown = [item for name in names for item in _images(layout, val, evaluations[name], summary, part)]
        newest = evaluations[names[-1]]
        page = {
            "schema": 1,
            "line": params.line,
            "validation": _validation(params),
            "left_out": sum(len(Quarantine.load(layout.quarantine(stage)).images) for stage in ("dataset", "embed")),
            "operating_score": newest.operating_score,
            "unknown_objects": {name: evaluation.unknown.objects for name, evaluation in evaluations.items()},
            "naming": None if newest.naming is None else newest.naming.model_dump(mode="json"),
            "confusion": newest.confusion.model_dump(mode="json"),
            "decoder": decoder,
            "images": shown,
        }
        _write_json(part / "summary.json", summary)
        _write_json(part / "page.json", page)
        shutil.rmtree(layout.report, ignore_errors=True)
        os.replace(part, layout.report)
        write_plots(layout.plots, evaluations, layout.report / "images" / names[-1])
        write_metrics(layout.summary_metrics, summary_metrics(evaluations[BASE], newest, decoder))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _entry(layout: Layout, params: Params, evaluation: Evaluation) -> dict[str, Any]:
    """One element of `sessions` in summary.json; `base` has the same keys."""
    folder = layout.classifier(evaluation.name)
    session = params.sessions.get(evaluation.name)
    return {
        "name": evaluation.name,
        "classes": session.classes if session else params.dataset.base_classes,
        "shots": session.shots if session else None,
        "classifier": {"sha256": file_sha256(folder / "classifier.safetensors"), "version": None},
        "ap": evaluation.ap.model_dump(),
        "ap50": evaluation.ap50.model_dump(),
        "per_class": {
            name: {"ap": score.ap, "ap50": score.ap50, "instances": score.instances}
            for name, score in evaluation.per_class.items()
        },
        "base_only": evaluation.base_only.model_dump(),
        "unknown": {
            "auroc": evaluation.unknown.auroc,
            "unlabelled_false_positives_per_image": evaluation.unknown.unlabelled_false_positives_per_image,
        },
        "names": _names(evaluation),
        "seconds": read_json(folder / "session.json")["seconds"],
    }


def _names(evaluation: Evaluation) -> dict[str, float | None]:
    """Share of the known objects that are rightly named, in per cent, and false names per 1,000 images."""
    if evaluation.naming is None:
        return {"named": None, "false_names": None}
    rates = evaluation.naming.rates
    named = None if rates.named is None else 100.0 * rates.named.value
    return {"named": named, "false_names": rates.false_names.value}


def _images(
    layout: Layout, val: Dataset, evaluation: Evaluation, summary: dict[str, Any], part: Path
) -> list[dict[str, Any]]:
    """Draw the chosen images of one classifier into `part/images/NAME` and describe them."""
    name = evaluation.name
    entry = next(entry for entry in (summary["base"], *summary["sessions"]) if entry["name"] == name)
    detections = read_json(layout.evaluation(name) / "detections.json")
    known = [*evaluation.classes.base, *evaluation.classes.novel]
    matched = match_all(val, detections, known, evaluation.operating_score)
    chosen = choose(matched, entry["classes"], IMAGES_PER_KIND)
    folder = part / "images" / name
    folder.mkdir(parents=True)
    return [
        {"session": name, **render(val, item, kind, folder, f"{kind}-{rank}")}
        for kind in KINDS
        for rank, item in enumerate(chosen[kind], start=1)
    ]


def _validation(params: Params) -> dict[str, Any]:
    """Where the validation images come from: `drawn`, `given`, or `held out` of the training images."""
    if params.dataset.drawn is not None:
        return {"origin": "drawn", "share": None}
    if params.dataset.val is not None:
        return {"origin": "given", "share": None}
    return {"origin": "held out", "share": params.dataset.holdout}


def read_json(path: Path) -> Any:
    """Content of a JSON file that a stage wrote; ObjectMissing or IntegrityError where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ObjectMissing(f"cannot read {path}: {error.strerror}; run 'samif run' to make it") from None
    except ValueError as error:
        raise IntegrityError(f"{path} is not JSON ({error}); delete it and run 'samif run' again") from None


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
