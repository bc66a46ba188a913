"""Stages `evaluate_base` and `evaluate@NAME`: metrics of one classifier on the validation images."""

from __future__ import annotations

import json
import shutil

from flows.artifacts.proposal_file import ProposalFile
from flows.loaders.inputs import dataset_of
from flows.report.dvc_metrics import classifier_metrics, write_metrics
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from samif.classifier.model import Classifier
from samif.config import BASE, Params
from samif.evaluate.evaluate import evaluate


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/evaluations/NAME/{evaluation,detections}.json` and `artifacts/metrics/NAME.json`."""
    name = session or BASE
    classifier = Classifier.load(layout.classifier(name) / "classifier.safetensors")
    dataset = dataset_of(layout, params, "val")
    proposals = ProposalFile(layout.proposals("val"))
    with track(len(dataset.images), "images", f"evaluate {name}") as progress:
        scored = evaluate(
            name, dataset, proposals.of, classifier, params.dataset.base_classes, params.evaluate, progress.advance
        )
    folder = layout.evaluation(name)
    shutil.rmtree(folder, ignore_errors=True)
    scored.evaluation.save(folder / "evaluation.json")
    (folder / "detections.json").write_text(json.dumps(scored.detections), encoding="utf-8")
    write_metrics(layout.metrics(name), classifier_metrics(scored.evaluation))
