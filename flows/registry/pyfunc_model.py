"""A registered version as `mlflow.pyfunc.load_model` and `mlflow models serve` load it.

The folder of a version holds the classifier and the card; decoder and encoder are found by the digests on the card:
the decoder in this user's cache or in the registry, the encoder in the package or in the cache of fetched weights.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from flows.loaders.inputs import encoder_of, semantic_of
from flows.registry.mlflow_store import MlflowStore
from flows.registry.version_files import DECODER
from flows.runtime.cache_dir import cache_folder
from flows.runtime.tuning import tune_process
from samif.dataset.images import ImageError
from samif.errors import DataError, IntegrityError, ObjectMissing
from samif.inference.load import EncoderLoaders, FoundModel, ModelFiles
from samif.inference.model import Model, open_model
from samif.io import files
from samif.io.hashing import file_sha256
from samif.versions.card import Card

logger = logging.getLogger(__name__)

IMAGE, PATH, SCORE = "image", "path", "score"
"""Columns of the input, and the parameter: bytes of an image file, or where it lies; minimum score of an instance."""


class SamifModel(PythonModel):
    """Images in, instances out, as `samif predict` answers."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version that `context.artifacts` names.

        Raises:
            ObjectMissing: the decoder or the encoder is not at hand.
            IntegrityError: a file is not the card's.
        """
        tune_process()
        classifier, card = Path(context.artifacts["classifier"]), Card.load(Path(context.artifacts["card"]))
        decoder = find_decoder(classifier.parent, card)
        card.check_files(classifier, decoder)
        found = ModelFiles(classifier, decoder, card, classifier.parent)
        loaders = EncoderLoaders(encoder_of, semantic_of)
        self._model = open_model(FoundModel(f"{card.line} '{card.name}'", found, None, loaders))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Segment images.

        Args:
            model_input: a table with a column `image` (bytes of image files) or `path` (files on this machine).
            params: `score`, minimum score of an instance; below 0 it is the model's own.

        Returns:
            Per image {"width", "height", "instances": [{"category_id", "class", "segmentation" (RLE), "bbox",
            "score"}]} in the frame of the upright image, category ids counting from 1.

        Raises:
            DataError: an image cannot be read, or the table has neither column.
        """
        score = (params or {}).get(SCORE)
        least = None if score is None or score < 0.0 else float(score)
        return [_segmented(self._model, image, number, least) for number, image in enumerate(_images(model_input), 1)]


def find_decoder(folder: Path, card: Card) -> Path:
    """The decoder with the digest on a card: beside the classifier, in this user's cache, or in the registry that
    MLflow is set to, from which it is then cached.

    Raises:
        ObjectMissing: it is in none of them.
        ServiceUnavailable: the registry does not answer.
    """
    wanted = card.decoder.sha256
    cached = cache_folder("decoders") / f"{wanted}.safetensors"
    for path in (folder / DECODER, cached):
        if path.is_file() and file_sha256(path) == wanted:
            return path
    model = f"{card.line}-decoder"
    store = MlflowStore(mlflow.get_registry_uri(), Path.cwd())
    missing = ObjectMissing(
        f"decoder {wanted[:12]} is neither in {cached.parent} nor in the registry at {store.shown}; set "
        "MLFLOW_TRACKING_URI to the registry that the model was registered in"
    )
    if store.database is not None and not store.database.exists():
        raise missing
    with store.reading(), tempfile.TemporaryDirectory() as temporary:
        found = [v for v in store.find_versions(model).values() if v.tags.get("decoder_sha256") == wanted]
        if not found:
            raise missing
        fetched = store.fetch(found[0], DECODER, Path(temporary))
        if file_sha256(fetched) != wanted:
            raise IntegrityError(f"{model}/{found[0].version} is not the decoder that its tag says; register it again")
        files.commit(cached, fetched.read_bytes())
    return cached


def _images(table: Any) -> Iterator[bytes | str]:
    columns: Mapping[str, Any] = table if isinstance(table, Mapping) else {name: table[name] for name in table.columns}
    for name in (IMAGE, PATH):
        if name in columns:
            column = columns[name]
            yield from [column] if isinstance(column, (str, bytes)) else list(column)
            return
    raise DataError(
        f"expected a column '{IMAGE}' (bytes of image files) or '{PATH}', got {', '.join(columns) or 'none'}"
    )


def _segmented(model: Model, image: bytes | str, number: int, score: float | None) -> dict[str, Any]:
    if isinstance(image, str):
        found = model.predict(image, score)
    elif isinstance(image, bytes):
        with tempfile.NamedTemporaryFile(prefix="samif-") as file:  # read as `samif predict` reads files
            file.write(image)
            file.flush()
            try:
                found = model.predict(file.name, score)
            except ImageError as error:
                raise DataError(f"image {number} of {IMAGE}: it {error.what}") from None
    else:
        raise DataError(f"expected the bytes of an image file or its path, got {type(image).__name__}")
    instances = [
        {"category_id": coco["category_id"], "class": name}
        | {key: coco[key] for key in ("segmentation", "bbox", "score")}
        for name, coco in zip(found.class_names, found.to_coco(), strict=True)
    ]
    return {"width": found.width, "height": found.height, "instances": instances}
