"""Where models are found: folders, the workspace at hand, and the registry. `samif.load_model` comes here through the
entry point `samif.model_sources`."""

from __future__ import annotations

import os
from pathlib import Path

from flows.loaders.inputs import encoder_of, semantic_of
from flows.registry.model_files import find_model
from flows.registry.registry import Registry
from flows.runtime.cache_dir import cache_folder
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.inference.load import EncoderLoaders, FoundModel

LOADERS = EncoderLoaders(encoder_of, semantic_of)
"""Checkpoints may also lie at an address or in the cache of fetched weights."""


def find_here(address: str) -> FoundModel:
    """Find a model in the registry at MLFLOW_TRACKING_URI, else in that of the workspace in the current directory.

    Raises:
        SamifError: see `find`.
    """
    return find(address, Path.cwd(), os.environ.get("MLFLOW_TRACKING_URI"))


def find(address: str, root: Path, tracking_uri: str | None = None) -> FoundModel:
    """Find a model.

    Args:
        address: see `flows.registry.model_files.find_model`.
        root: the workspace, if there is a params.yaml.
        tracking_uri: of the registry; none means that of the workspace.

    Raises:
        SamifError: params.yaml is wrong, the registry does not answer, or there is no such model.
    """
    layout = Layout(root.resolve())
    params = load_params(layout.params) if layout.params.exists() else None
    registry = None
    if params is not None:
        registry = Registry(tracking_uri or params.registry.tracking_uri, layout.root)
    elif tracking_uri:
        registry = Registry(tracking_uri, layout.root, cache_folder("models"))
    return FoundModel(address, find_model(address, layout, registry), params, LOADERS)
