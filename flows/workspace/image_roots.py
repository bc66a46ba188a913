"""Where the images of a split lie."""

from __future__ import annotations

from pathlib import Path

from flows.workspace.layout import Layout
from samif.config import Params


def images_root(layout: Layout, params: Params, split: str) -> Path:
    """Folder that the file names of `layout.index(split)` are relative to; `split` is `train` or `val`."""
    source = params.dataset.train
    if source is None:
        return layout.drawn / split / "images"
    if split == "val" and params.dataset.val is not None:
        source = params.dataset.val
    return layout.root / source.images
