"""The pool of a workspace, kept in `.samif/protocol`: features are taken once for all draws, heads and settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from flows.artifacts.proposal_file import ProposalFile
from flows.loaders.inputs import check_encoder, decoder_of, encoder_of, semantic_of, source_of
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from samif.classifier.collect import BaseSamples, Instance, collect_base
from samif.classifier.heads import Array
from samif.classifier.incremental import InstanceKey, extract_shot_features
from samif.config import FeaturePart, Params, digest
from samif.io import files
from samif.io.hashing import file_sha256
from samif.protocol.pool import Pool


def pool_of(layout: Layout, params: Params, keys: Sequence[InstanceKey]) -> Pool:
    """The pool of a workspace with the features of these instances; what is not kept yet is taken and kept.

    Raises:
        ObjectMissing: the workspace was not run.
        IntegrityError: the embeddings are of another encoder.
    """
    parts: list[FeaturePart] = ["token", "pooled"]
    if params.semantic is not None:
        parts.append("semantic")
    kept = layout.state / "protocol" / f"{_key(layout, params, parts)}.safetensors"
    pool = _load(kept, params, parts) if kept.is_file() else None
    if pool is None:
        pool = _collect(layout, params, parts)
        _save(kept, pool)
    missing = [key for key in keys if key not in pool.shot_features]
    if missing:
        pool = pool.with_shot_features(_extract(layout, params, parts, missing))
        _save(kept, pool)
    return pool


def _key(layout: Layout, params: Params, parts: Sequence[str]) -> str:
    """Digest of everything that decides a feature or which images it is taken from."""
    files = [
        layout.decoder / "decoder.safetensors",
        layout.index("train"),
        layout.embeddings,
        layout.proposals("train"),
    ]
    section = params.train_base
    content = {
        "files": [file_sha256(path) for path in files],
        "parts": list(parts),
        "classes": list(params.dataset.base_classes),
        "base": [section.prompts_per_object, section.seed],
        "shot_features": [params.incremental.prompts_per_shot, list(params.incremental.rotations)],
    }
    return digest(content)[:32]


def _collect(layout: Layout, params: Params, parts: Sequence[FeaturePart]) -> Pool:
    source, decoder = source_of(layout, params, "train"), decoder_of(layout, device_here())
    proposals = ProposalFile(layout.proposals("train"))
    with track(len(source.dataset.images), "images", "collect features") as progress:
        base = collect_base(
            source.dataset, decoder, params.dataset.base_classes, source.look, proposals.of, parts, params.train_base,
            progress.advance, source.tiles,
        )  # fmt: skip
    shown = next(found for image in source.dataset.images if len(found := proposals.of(image)))
    columns = {"token": shown.tokens, "pooled": shown.pooled, "semantic": shown.semantic}
    widths = {part: values.shape[1] for part in parts if (values := columns[part]) is not None}
    return Pool(base, {}, widths)


def _extract(
    layout: Layout, params: Params, parts: Sequence[FeaturePart], keys: Sequence[InstanceKey]
) -> dict[InstanceKey, Array]:
    device = device_here()
    encoder, decoder = encoder_of(params.encoder, device), decoder_of(layout, device)
    check_encoder(layout, encoder.digest)
    semantic = semantic_of(params.semantic, device).encode if params.semantic is not None else None
    dataset = source_of(layout, params, "train").dataset
    with track(len({image for image, _ in keys}), "images", "shot features") as progress:
        return extract_shot_features(
            keys,
            dataset,
            decoder,
            encoder.encode,
            parts,
            params.incremental,
            semantic,
            progress.advance,
            encoder.tiles,
        )


def _save(path: Path, pool: Pool) -> None:
    base = [(row, i) for row, found in enumerate(pool.base.instances.values()) for i in found]
    tensors: dict[str, NDArray[np.generic]] = {
        "base": np.concatenate([i.samples for _, i in base]),
        "base_index": np.array([[row, i.image, len(i.samples)] for row, i in base], dtype=np.int64),
        "background": np.ascontiguousarray(pool.base.background),
        "background_images": pool.base.background_images,
        "widths": np.array(list(pool.widths.values()), dtype=np.int64),
    }
    if pool.shot_features:
        tensors["shot_features"] = np.concatenate(list(pool.shot_features.values()))
        tensors["shot_features_index"] = np.array(
            [[*key, len(s)] for key, s in pool.shot_features.items()], dtype=np.int64
        )
    with files.written(path) as draft:
        save_file(tensors, draft)


def _load(path: Path, params: Params, parts: Sequence[FeaturePart]) -> Pool | None:
    """What was kept; None where it is damaged: it can be taken again."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError):
        return None
    instances: dict[str, list[Instance]] = {name: [] for name in params.dataset.base_classes}
    names = list(instances)
    index = tensors["base_index"]
    for (row, image, _), samples in zip(index.tolist(), _cut(tensors["base"], index[:, 2]), strict=True):
        instances[names[row]].append(Instance(image, samples))
    base = BaseSamples(instances, tensors["background"], tensors["background_images"])
    shot_features: dict[InstanceKey, Array] = {}
    if "shot_features" in tensors:
        index = tensors["shot_features_index"]
        cut = _cut(tensors["shot_features"], index[:, 2])
        shot_features = {(row[0], row[1]): samples for row, samples in zip(index.tolist(), cut, strict=True)}
    return Pool(base, shot_features, dict(zip(parts, tensors["widths"].tolist(), strict=True)))


def _cut(samples: Array, counts: NDArray[np.int64]) -> list[Array]:
    return np.split(samples, np.cumsum(counts)[:-1])
