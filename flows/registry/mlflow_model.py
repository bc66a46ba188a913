"""The folder of a version as MLflow knows models: MLmodel, code, signature, input example and pinned requirements.

Nothing in it is pickled: the model is a file of code, and the weights are files in a safe format.
"""

from __future__ import annotations

import io
from contextlib import suppress
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from packaging.requirements import Requirement
from PIL import Image

from samif.inference.load import CARD, CLASSIFIER
from samif.versions.card import Card

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

EXAMPLE_SIDE = 256
"""Longer side of the image in the input example, in pixels."""


def write_model(folder: Path, card: Card, run_id: str, model_id: str, example: Path | None) -> None:
    """Make `folder`, which holds classifier.safetensors and card.json, a model of MLflow.

    Args:
        example: image of the input example; none, or one that is no longer there, means a drawn one.
    """
    import pandas as pd
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    from flows.registry import pyfunc_entry

    model = Model(run_id=run_id, model_id=model_id)
    made = folder / ".mlflow"
    save_model(
        made,
        python_model=str(pyfunc_entry.__file__),
        mlflow_model=model,
        signature=signature(),
        input_example=pd.DataFrame({"image": [_example(example)]}),
        pip_requirements=pinned_requirements(),
        metadata={
            "line": card.line,
            "session": card.name,
            "card_sha256": card.digest,
            "decoder_sha256": card.decoder.sha256,
            "encoder": card.encoder.name,
            "encoder_digest": card.encoder.digest,
        },
    )
    for path in made.iterdir():
        path.rename(folder / path.name)
    made.rmdir()
    # what a Python model finds in its context; save_model would copy the files
    named = {"classifier": CLASSIFIER, "card": CARD}
    model.flavors["python_function"]["artifacts"] = {name: {"path": path, "uri": path} for name, path in named.items()}
    model.save(folder / "MLmodel")


def signature() -> ModelSignature:
    """A table of images, as bytes or as paths -> size and instances of each."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    segmentation = Object([Property("size", Array(DataType.long)), Property("counts", DataType.string)])
    instance = Object(
        [
            Property("category_id", DataType.long),
            Property("class", DataType.string),
            Property("segmentation", segmentation),
            Property("bbox", Array(DataType.double)),
            Property("score", DataType.double),
        ]
    )
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.binary, "image", required=False),
                ColSpec(DataType.string, "path", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.long, "width"),
                ColSpec(DataType.long, "height"),
                ColSpec(Array(instance), "instances"),
            ]
        ),
        # MLflow's parameters have a number as default: below 0 it stands for the model's own score
        params=ParamSchema([ParamSpec("score", DataType.double, -1.0)]),
    )


def pinned_requirements() -> list[str]:
    """samif and all that it declares, each in the version that is installed here."""
    declared = [Requirement(line) for line in requires("samif") or ()]
    needed = [r.name for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [f"samif=={version('samif')}", *sorted(f"{name}=={version(name)}" for name in needed)]


def _example(path: Path | None) -> bytes:
    """An image as the input example shows it: small, so that it can be read in a browser."""
    from samif.dataset.images import ImageError, read_image

    pixels = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3))
    if path is not None:
        with suppress(ImageError):
            pixels = read_image(path)
    image = Image.fromarray(pixels)
    image.thumbnail((EXAMPLE_SIDE, EXAMPLE_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
