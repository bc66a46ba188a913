"""How threads wait is settled before torch, which reads it once, is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
from flows.cli import main
sys.argv = ["samif", "--help"]
try:
    main()
except SystemExit:
    print("torch" in sys.modules, os.environ["OMP_WAIT_POLICY"], file=sys.stderr)
"""


@pytest.mark.parametrize(("told", "expected"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(told: dict[str, str], expected: str) -> None:
    rest = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", CODE], env=rest | told, capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["False", expected]
