"""Stage `embed`: every picture's embedding in the store, and the manifest of which."""

from __future__ import annotations

from flows.embedding import embed_pictures
from flows.layout import Layout
from flows.stages.inputs import dataset_of
from flows.store import EmbeddingStore
from samif.config import Params


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/embeddings.json`."""
    datasets = [dataset_of(layout, params, split) for split in ("train", "val")]
    pictures = [(dataset.path_of(p), p.sha256) for dataset in datasets for p in dataset.pictures]
    store = EmbeddingStore(layout.root / params.embed.store)
    embed_pictures(pictures, params.embed, params.encoder, store).save(layout.embeddings)
