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
from samif.classifier.incremental import Place, look_at
from samif.config import FeaturePart, Params, digest
from samif.io import files
from samif.io.hashing import file_sha256
from samif.protocol.pool import Pool


def pool_of(layout: Layout, params: Params, places: Sequence[Place]) -> Pool:
    """The pool of a workspace with looks at these instances; what is not kept yet is taken and kept.

    Raises:
        SamifError: the workspace was not run, or its encoder is another one by now.
    """
    parts: list[FeaturePart] = ["token", "pooled"]
    if params.semantic is not None:
        parts.append("semantic")
    kept = layout.state / "protocol" / f"{_key(layout, params, parts)}.safetensors"
    pool = _load(kept, params, parts) if kept.is_file() else None
    if pool is None:
        pool = _collect(layout, params, parts)
        _save(kept, pool)
    missing = [place for place in places if place not in pool.looks]
    if missing:
        pool = pool.with_looks(_look(layout, params, parts, missing))
        _save(kept, pool)
    return pool


def _key(layout: Layout, params: Params, parts: Sequence[str]) -> str:
    """Digest of everything that decides a feature or which pictures it is taken from."""
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
        "looks": [params.incremental.prompts_per_shot, list(params.incremental.rotations)],
    }
    return digest(content)[:32]


def _collect(layout: Layout, params: Params, parts: Sequence[FeaturePart]) -> Pool:
    source, decoder = source_of(layout, params, "train"), decoder_of(layout, device_here())
    proposals = ProposalFile(layout.proposals("train"))
    with track(len(source.dataset.pictures), "pictures", "collect features") as progress:
        base = collect_base(
            source.dataset, decoder, params.dataset.base_classes, source.look, proposals.of, parts, params.train_base,
            progress.advance,
        )  # fmt: skip
    shown = next(found for picture in source.dataset.pictures if len(found := proposals.of(picture)))
    columns = {"token": shown.tokens, "pooled": shown.pooled, "semantic": shown.semantic}
    widths = {part: values.shape[1] for part in parts if (values := columns[part]) is not None}
    return Pool(base, {}, widths)


def _look(layout: Layout, params: Params, parts: Sequence[FeaturePart], places: Sequence[Place]) -> dict[Place, Array]:
    device = device_here()
    encoder, decoder = encoder_of(params.encoder, device), decoder_of(layout, device)
    check_encoder(layout, encoder.digest)
    semantic = semantic_of(params.semantic, device).encode if params.semantic is not None else None
    dataset = source_of(layout, params, "train").dataset
    with track(len({picture for picture, _ in places}), "pictures", "look at shots") as progress:
        return look_at(places, dataset, decoder, encoder.encode, parts, params.incremental, semantic, progress.advance)


def _save(path: Path, pool: Pool) -> None:
    base = [(row, i) for row, found in enumerate(pool.base.instances.values()) for i in found]
    tensors: dict[str, NDArray[np.generic]] = {
        "base": np.concatenate([i.samples for _, i in base]),
        "base_index": np.array([[row, i.picture, len(i.samples)] for row, i in base], dtype=np.int64),
        "background": np.ascontiguousarray(pool.base.background),
        "background_pictures": pool.base.background_pictures,
        "widths": np.array(list(pool.widths.values()), dtype=np.int64),
    }
    if pool.looks:
        tensors["looks"] = np.concatenate(list(pool.looks.values()))
        tensors["looks_index"] = np.array([[*place, len(s)] for place, s in pool.looks.items()], dtype=np.int64)
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
    for (row, picture, _), samples in zip(index.tolist(), _cut(tensors["base"], index[:, 2]), strict=True):
        instances[names[row]].append(Instance(picture, samples))
    base = BaseSamples(instances, tensors["background"], tensors["background_pictures"])
    looks: dict[Place, Array] = {}
    if "looks" in tensors:
        index = tensors["looks_index"]
        cut = _cut(tensors["looks"], index[:, 2])
        looks = {(row[0], row[1]): samples for row, samples in zip(index.tolist(), cut, strict=True)}
    return Pool(base, looks, dict(zip(parts, tensors["widths"].tolist(), strict=True)))


def _cut(samples: Array, counts: NDArray[np.int64]) -> list[Array]:
    return np.split(samples, np.cumsum(counts)[:-1])
