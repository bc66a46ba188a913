"""Stage `train_base`: the frozen feature space, the base rows and the background."""

from __future__ import annotations

import shutil
import time

import numpy as np

from flows.layout import Layout
from flows.progress import track
from flows.proposal_file import ProposalFile
from flows.session_record import SessionRecord
from flows.stages.inputs import decoder_of, source_of
from samif.classifier.base import train_base
from samif.classifier.model import Array
from samif.classifier.samples import background_rows, features_of, instance_samples
from samif.config import BASE, Params


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/classifiers/base/{classifier.safetensors,session.json}`."""
    started = time.monotonic()
    section = params.train_base
    source, decoder = source_of(layout, params, "train"), decoder_of(layout)
    proposals = ProposalFile(layout.proposals("train"))
    learnt = frozenset(params.dataset.base_classes)
    instances: dict[str, list[Array]] = {name: [] for name in params.dataset.base_classes}
    background: list[Array] = []
    with track(len(source.dataset.pictures), "pictures", "collect features") as progress:
        for picture in source.dataset.pictures:
            rng = np.random.default_rng([section.seed, picture.id])
            labelled = [a for a in picture.annotations if a.category in learnt and not a.crowd]
            if labelled:
                embedding = source.read([picture])[0]
                semantic = source.semantic(picture) if "semantic" in section.features else None
                found = instance_samples(
                    decoder, embedding, picture, labelled, section.prompts_per_object, section.features, rng, semantic
                )
                for annotation, samples in zip(labelled, found, strict=True):
                    instances[annotation.category].append(samples)
            candidates = proposals.of(picture)
            if len(candidates):
                negatives = candidates.take(background_rows(candidates, picture.annotations, learnt))
                background.append(features_of(negatives, section.features))
            progress.advance()
    width = next(samples[0].shape[1] for samples in instances.values() if samples)
    classifier = train_base(instances, np.concatenate([np.zeros((0, width), np.float32), *background]), section)
    folder = layout.classifier(BASE)
    shutil.rmtree(folder, ignore_errors=True)
    classifier.save(folder / "classifier.safetensors")
    SessionRecord.of_base(classifier.classes, section.seed, time.monotonic() - started).save(folder / "session.json")
