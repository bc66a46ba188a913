"""The house's outer walls: who may import whom, and how long a module may be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 350
MODULES = sorted(path for package in ("samif", "flows", "infra") for path in (ROOT / package).rglob("*.py"))


def test_import_contracts_hold() -> None:
    """The contracts stand in pyproject.toml, [tool.importlinter]."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_encoder_imports_without_the_rest() -> None:
    """`samif.sam`, and its benchmark on a GPU, also run on machines that have torch and little else."""
    code = (
        "import sys, importlib\n"
        "names = ('pydantic', 'ruamel.yaml', 'ray', 'mlflow', 'dvc', 'boto3', 'typer', 'timm', 'rich')\n"
        "sys.modules.update(dict.fromkeys(names))\n"
        "import samif.sam.zoo, benchmarks.gpu"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["", "import segment_anything; "])
def test_stages_start_without_torchvision_and_the_official_package_stays_whole(first: str) -> None:
    """Torchvision brings torch's compiler along: nearly half of a stage's start."""
    code = (
        f"import sys; {first}import flows.stages.session, flows.stages.propose, samif.sam.encoder\n"
        "print('torchvision' in sys.modules, end=' ')\n"
        "import segment_anything\n"
        "from segment_anything import SamPredictor\n"
        "from segment_anything.modeling import Sam\n"
        "print(segment_anything.sam_model_registry['vit_b'].__name__, SamPredictor.__name__, end=' ')\n"
        "print(Sam is samif.sam.encoder.Sam, hasattr(segment_anything, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [str(bool(first)), "build_sam_vit_b", "SamPredictor", "True", "False"], done.stderr


def test_every_module_lies_in_a_package() -> None:
    """A loose module says nothing of its layer, and the contracts of pyproject.toml would not hold it."""
    loose = {package: {path.name for path in (ROOT / package).glob("*.py")} for package in ("flows", "samif")}
    assert loose == {"flows": {"__init__.py"}, "samif": {"__init__.py", "errors.py"}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_has_one_reason_to_exist(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < MAX_LINES, "split it by reason to change"
    assert not source.strip() or source.lstrip().startswith('"""'), "say in a docstring why the module exists"
