"""One model for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.inference.source import find
from samif.inference.model import Model, open_model
from tests.support.random_model import save_random_model


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of `tests.support.random_model`."""
    return save_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="package")
def model(folder: Path) -> Model:
    return open_model(find(str(folder), folder))
