"""Stage `pretrain_decoder`: tune the mask decoder once; from here on it is frozen."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

from flows.layout import Layout
from flows.progress import track
from flows.stages.inputs import check_encoder, sam_of, source_of
from samif.config import Params
from samif.finetune.train import learnable, planned_steps, tune
from samif.sam.decoder import InstanceDecoder, save_decoder


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/decoder/{decoder.safetensors,training.json}`."""
    section = params.pretrain_decoder
    source = source_of(layout, params, "train")
    loaded = sam_of(params.encoder)
    check_encoder(layout, loaded.encoder_digest)
    decoder, pictures = InstanceDecoder.of(loaded.sam), source.dataset.pictures
    names = params.dataset.base_classes if section.classes == "base" else source.dataset.category_names
    steps = planned_steps(section, len(learnable(source.dataset.pictures, frozenset(names))))
    with track(steps, "steps", "tune decoder") as progress:
        tuned = tune(decoder, pictures, frozenset(names), source.read, section, progress.advance)
    shutil.rmtree(layout.decoder, ignore_errors=True)
    save_decoder(tuned.decoder, loaded.name, layout.decoder / "decoder.safetensors")
    training = {
        "schema": 1,
        "classes": section.classes,
        "steps": steps,
        "seconds": round(tuned.seconds, 1),
        "kept": tuned.kept,
        "curve": tuned.curve,
        "quality": {"before": asdict(tuned.before), "after": asdict(tuned.after)},
    }
    (layout.decoder / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
