"""Stage `session@NAME`: new rows for the classes of one session, on the classifier before it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from flows.artifacts.session_record import SessionRecord
from flows.loaders.inputs import check_encoder, check_semantic, dataset_of, decoder_of, encoder_of, semantic_of
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from flows.workspace.shots import available
from flows.workspace.source_paths import source_at
from samif.classifier.incremental import extract_shot_features, learn_session
from samif.classifier.model import Classifier
from samif.config import Params, SessionParams
from samif.dataset.check import raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.model import Dataset
from samif.dataset.sessions import draw_shots
from samif.errors import DataError
from samif.evaluate.model import BACKGROUND


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/classifiers/NAME/{classifier.safetensors,session.json}`."""
    assert session is not None  # checked by run_stage
    started = time.monotonic()
    section = params.sessions[session]
    dataset = _shots_from(layout, params, session, section)
    shots = draw_shots(dataset, section.classes, section.shots, section.seed)
    if section.background:
        shots = {BACKGROUND: [(p.id, a.id) for p in dataset.images for a in p.annotations if not a.crowd]}
    before = Classifier.load(layout.classifier(section.after) / "classifier.safetensors")
    device = device_here()
    encoder, decoder = encoder_of(params.encoder, device), decoder_of(layout, device)
    check_encoder(layout, encoder.digest)
    semantic = semantic_of(params.semantic, device) if params.semantic and "semantic" in before.space.parts else None
    if semantic is not None:
        check_semantic(layout, semantic.digest)
    keys = [key for of_class in shots.values() for key in of_class]
    with track(len({image for image, _ in keys}), "images", f"learn {session}") as progress:
        shot_features = extract_shot_features(
            keys, dataset, decoder, encoder.encode, before.space.parts, params.incremental,
            semantic.encode if semantic is not None else None, progress.advance, encoder.tiles,
        )  # fmt: skip
    if section.background:
        after = before.reject([shot_features[key] for key in keys])
    else:
        after = learn_session(before, shots, shot_features)
    folder = layout.classifier(session)
    shutil.rmtree(folder, ignore_errors=True)
    after.save(folder / "classifier.safetensors")
    SessionRecord.of_session(session, section, shots, time.monotonic() - started).save(folder / "session.json")


def _shots_from(layout: Layout, params: Params, name: str, section: SessionParams) -> Dataset:
    """The training images, or the session's own images if their digest is the one in params.yaml."""
    if section.source is None:
        available(layout, params).check(name, section.classes, section.shots)
        return dataset_of(layout, params, "train")
    source = source_at(layout.root, section.source)
    dataset, findings = read_coco(Path(source.images), Path(source.annotations), params.dataset)
    raise_on_errors(findings)
    if dataset.digest != section.source.digest:
        raise DataError(
            f"{section.source.annotations} or its images changed since the session was added; "
            "remove the session and add it again to take the new labels"
        )
    return dataset
