"""The installed console script `samif`, as a person would call it, and what a refusal must look like."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMIF = Path(sys.executable).parent / "samif"
PROGRESS = re.compile(r"[\w. @-]+: \d+/\d+ .*|(train|val): .*")
"""Lines such as "propose val: 3/12 images" that a stage leaves on standard error where that is no terminal, and what
reading a split found."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `--json` printed, of a command that must have succeeded."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def samif(cwd: Path, *words: str | Path) -> Done:
    """Run `samif WORDS` in `cwd` to its end."""
    environment = os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    command = [str(SAMIF), *map(str, words)]
    encoding = environment.get("PYTHONIOENCODING") or "utf-8"
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding=encoding, timeout=900)
    return Done(ended.returncode, ended.stdout, ended.stderr)


def refusal(done: Done, *words: str | Path) -> str:
    """The one sentence of a refusal, which must hold all the words; nothing but progress may stand above it."""
    assert done.code == 1, (done.code, done.out, done.err)
    *above, sentence = done.err.splitlines()
    assert sentence.startswith("samif: "), done.err
    assert [line for line in above if not PROGRESS.fullmatch(line)] == []
    assert "internal error" not in sentence
    missing = [str(word) for word in words if str(word) not in sentence]
    assert not missing, (missing, sentence)
    return sentence


def inside(root: Path, *words: str | Path) -> Done:
    """The same in this process, which saves the seconds of the imports; a refusal is its sentence on `err`."""
    from typer.testing import CliRunner

    from flows.cli.app import app
    from samif.errors import SamifError

    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*map(str, words), "--workspace", str(root)])
    if isinstance(result.exception, SamifError):
        return Done(1, result.stdout, f"samif: {result.exception}\n")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)
