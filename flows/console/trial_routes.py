"""Try versions on an image."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import Form, UploadFile
from pydantic import Field

from flows.console.access import Routes
from flows.console.state import At
from samif.dataset.images import ImageError, read_image
from samif.errors import DataError
from samif.io.image_formats import is_image_name

routes = Routes()
Number = Annotated[int, Field(ge=1, le=1_000_000_000)]
MOST_PIXELS = 50_000_000


@routes.post("/workspaces/{workspace}/try", "viewer")
def try_versions(
    place: At,
    image: UploadFile,
    versions: Annotated[list[Number], Form(min_length=1, max_length=2)],
) -> list[dict[str, Any]]:
    """What each of one or two versions finds in an image file."""
    name = Path(image.filename or "image")
    if not is_image_name(name.name):
        raise DataError(f"'{name.name}' is no image by its extension; drop a JPEG, PNG, TIFF or HEIC file")
    with tempfile.NamedTemporaryFile(prefix="samif-try-", suffix=name.suffix) as file:
        file.write(image.file.read())
        file.flush()
        try:
            pixels = read_image(Path(file.name), MOST_PIXELS)
        except ImageError as error:
            raise DataError(f"'{name.name}' {error.what}; {error.remedy}") from None
    trials = [place.models.run(pixels, version) for version in versions]
    return [
        {
            "version": trial.version,
            "found": [{"name": name, "score": round(score, 3)} for name, score in trial.found],
            "drawing": "data:image/jpeg;base64," + base64.b64encode(trial.drawing).decode(),
        }
        for trial in trials
    ]
