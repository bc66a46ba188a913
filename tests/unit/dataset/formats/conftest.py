"""Importing in tests: what was read, and what was said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samif.dataset.formats import Imported, ImportOptions, import_labels


class Result:
    """An import, by what tests ask of it."""

    def __init__(self, done: Imported) -> None:
        self.done = done
        self.labels = Counter(a.category for image in done.dataset.images for a in image.annotations)
        self.areas = {image.file_name: [round(a.area) for a in image.annotations] for image in done.dataset.images}
        self.left_out = sum(f.count for f in done.findings if f.loss == "label")

    def says(self, words: str) -> int:
        """Number of records about which a finding with these words was made."""
        return sum(f.count for f in self.done.findings if words in f.what or words in f.kind)


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Import a source into a file of the test, with keyword options of `ImportOptions`, `format_` and `images`."""

    def importing(source: Path, format_: str | None = None, images: Path | None = None, **options: Any) -> Result:
        return Result(
            import_labels(source, tmp_path / "out.json", format_, images, ImportOptions(**options), force=True)
        )

    return importing
