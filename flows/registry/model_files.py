"""Find the files of a model: a classifier and the decoder that it was made with, from a folder or the registry."""

from __future__ import annotations

from pathlib import Path

from flows.registry.registry import Registry
from flows.workspace.layout import Layout
from samif.errors import ConfigError, ObjectMissing
from samif.inference.load import CLASSIFIER, DECODER, ModelFiles, read_model_folder


def find_model(ref: str, workspace: Layout | None, registry: Registry | None) -> ModelFiles:
    """Find the model that `ref` names.

    Args:
        ref: a folder with classifier.safetensors (relative to the current directory or to the workspace), whose decoder
            is decoder.safetensors in it or that of the workspace it lies in; or `NAME`, `NAME/VERSION`, `NAME@alias`,
            each with or without `models:/` in front.
        workspace: where relative folders are also looked for.
        registry: where references are looked up.

    Raises:
        ConfigError: `ref` is neither a folder with a classifier nor the form of a reference.
        ObjectMissing: nothing of that name, or a folder without its weights.
        IntegrityError: files that are not the card's.
    """
    places = [Path(ref), *([workspace.root / ref] if workspace else [])]
    folder = next((place for place in places if (place / CLASSIFIER).is_file()), None)
    if folder is None:
        if registry is None:
            raise ObjectMissing(
                f"there is no {CLASSIFIER} in '{ref}', and no registry to look it up in: give the folder of a model, "
                "use it in a workspace (params.yaml), or set MLFLOW_TRACKING_URI"
            )
        try:
            folder = registry.download(ref)
        except (ConfigError, ObjectMissing) as error:
            raise type(error)(f"'{ref}' is no folder with {CLASSIFIER}, and as a version: {error}") from None
    return read_model_folder(folder, folder.resolve().parent.parent / "decoder" / DECODER)
