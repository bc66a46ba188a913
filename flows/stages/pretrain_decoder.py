"""Stage `pretrain_decoder`: fine-tune the mask decoder, which is frozen from then on."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.finetuning.distributed import finetune_distributed, has_gpu
from flows.finetuning.worker import Job
from flows.loaders.inputs import check_encoder, reader_of, sam_of, source_of, store_of
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from samif.config import Params
from samif.finetune.train import finetune
from samif.finetune.training_set import learnable, planned_steps
from samif.sam.decoder import InstanceDecoder, save_decoder


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/decoder/{decoder.safetensors,training.json}`."""
    section = params.pretrain_decoder
    source = source_of(layout, params, "train")
    loaded = sam_of(params.encoder)
    check_encoder(layout, loaded.encoder_digest)
    decoder = InstanceDecoder.of(loaded.sam)
    names = params.dataset.base_classes if section.classes == "base" else source.dataset.category_names
    classes = frozenset(names)
    images = learnable(source.dataset.images, classes)
    steps = planned_steps(section, len(images))
    with track(steps, "steps", "fine-tune decoder") as progress:
        if section.workers == 1 and not has_gpu(params.embed.address):
            finetuned = finetune(decoder, images, classes, source.read, section, progress.advance, tiles=source.tiles)
        else:
            reader = functools.partial(reader_of, store_of(layout, params), EmbeddingManifest.load(layout.embeddings))
            job = Job(decoder, images, classes, reader, section, source.tiles)
            finetuned = finetune_distributed(job, section.workers, params.embed.address, progress)
    shutil.rmtree(layout.decoder, ignore_errors=True)
    save_decoder(finetuned.decoder, loaded.name, layout.decoder / "decoder.safetensors")
    training = {
        "schema": 1,
        "classes": section.classes,
        "steps": steps,
        "seconds": round(finetuned.seconds, 1),
        "kept": finetuned.kept,
        "curve": finetuned.curve,
        "quality": {"before": asdict(finetuned.before), "after": asdict(finetuned.after)},
    }
    (layout.decoder / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
