"""The log of a command on standard error, by --verbose and SAMIF_LOG."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import logging, sys
from flows.cli import main
from flows.cli.app import app

@app.command()
def talk() -> None:
    log = logging.getLogger("flows.talk")
    log.debug("details")
    try:
        raise ValueError("swallowed")
    except ValueError:
        log.info("a retry", exc_info=True)
    log.warning("a problem")
    logging.getLogger("another.package").info("not ours")

sys.argv = ["samif", *sys.argv[1:]]
main()
"""


def talk(level: str | None, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SAMIF_LOG"}
    environment |= {} if level is None else {"SAMIF_LOG": level}
    return subprocess.run(
        [sys.executable, "-c", CODE, *options, "talk"], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("level", "options", "shown"),
    [
        (None, [], {"a problem"}),
        ("warning", [], {"a problem"}),
        ("info", [], {"a problem", "a retry"}),
        (None, ["--verbose"], {"a problem", "a retry"}),
        ("debug", [], {"a problem", "a retry", "details"}),
        ("debug", ["--verbose"], {"a problem", "a retry", "details"}),
    ],
)
def test_the_level_selects_what_is_shown(level: str | None, options: list[str], shown: set[str]) -> None:
    done = talk(level, *options)
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert {text for text in ("a problem", "a retry", "details", "not ours") if text in done.stderr} == shown
    assert ("ValueError: swallowed" in done.stderr) == ("a retry" in shown)
    (warning,) = [line for line in lines if "a problem" in line]
    assert warning.split(" ", 2)[2] == "WARNING flows.talk: a problem"


def test_another_level_is_refused_in_one_sentence() -> None:
    done = talk("loud")
    assert (done.returncode, done.stderr) == (1, "samif: SAMIF_LOG is 'loud'; set it to debug, info or warning\n")
