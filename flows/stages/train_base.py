"""Stage `train_base`: the frozen feature space, the base rows and the background."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

from flows.artifacts.proposal_file import ProposalFile
from flows.artifacts.session_record import SessionRecord
from flows.loaders.inputs import decoder_of, source_of
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from samif.classifier.base import cross_fit, fit_base, steps
from samif.classifier.collect import collect_base
from samif.classifier.operating_point import NamingEvidence, OperatingPoint, choose_point
from samif.config import BASE, Params, TrainBaseParams
from samif.errors import DataError
from samif.evaluate.naming import cross_fitted_confidence, cross_fitted_evidence


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/classifiers/base/{classifier.safetensors,session.json}`."""
    started = time.monotonic()
    section = params.train_base
    source, decoder = source_of(layout, params, "train"), decoder_of(layout, device_here())
    proposals = ProposalFile(layout.proposals("train"))
    with track(len(source.dataset.images), "images", "collect features") as progress:
        samples = collect_base(
            source.dataset, decoder, params.dataset.base_classes, source.look, proposals.of, section.features, section,
            progress.advance, source.tiles,
        )  # fmt: skip
    with track(steps(section), "spaces", "fit classifier") as progress:
        trained = fit_base(samples, section, progress.advance)
    classifier = trained.classifier
    if section.false_names is not None:
        folds = cross_fit(samples, trained, section)
        # Names are the best detections of an image: a limit on their number does not reach them, and is left out here
        # so that changing it repeats only the evaluation.
        most = type(params.evaluate)().max_detections
        labelling = params.evaluate.model_copy(update={"max_detections": most})
        confidence = cross_fitted_confidence(source.dataset, proposals.of, folds, labelling)
        classifier = classifier.with_confidence(confidence)
        folds = [replace(fold, classifier=fold.classifier.with_confidence(confidence)) for fold in folds]
        evidence = cross_fitted_evidence(source.dataset, proposals.of, folds, labelling)
        classifier = classifier.with_operating_point(operating_point(evidence, section))
    folder = layout.classifier(BASE)
    shutil.rmtree(folder, ignore_errors=True)
    classifier.save(folder / "classifier.safetensors")
    SessionRecord.of_base(classifier.classes, section.seed, time.monotonic() - started).save(folder / "session.json")


def operating_point(evidence: NamingEvidence, params: TrainBaseParams) -> OperatingPoint | None:
    """The operating point; None, and said so, where the images are too few for its limits."""
    assert params.false_names is not None
    try:
        return choose_point(evidence, params.false_names, params.class_false_names)
    except DataError as refusal:
        print(f"no operating point: {refusal}; names are left to train_base.rejection", flush=True)
        return None
