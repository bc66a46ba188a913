"""Errors of numpy and PyTorch that mean out of memory are told from internal errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from flows import cli
from flows.runtime.tuning import out_of_memory

NEVER_HAD = 1 << 50
"""Bytes."""


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")  # no machine of the tests has one


CASES = [
    (lambda: np.empty(NEVER_HAD, dtype=np.uint8), "out of memory"),
    (lambda: torch.empty(NEVER_HAD, dtype=torch.uint8), "out of memory"),
    (of_a_gpu, "out of GPU memory"),
    (lambda: torch.ones(2) @ torch.ones(3), None),
]


@pytest.mark.parametrize(("act", "expected"), CASES)
def test_an_error_says_which_memory_was_full(act: Callable[[], object], expected: str | None) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        act()
    full = out_of_memory(raised.value)
    assert (full if full is None else str(full).partition(";")[0]) == expected


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (
            CASES[1][0],
            "samif: out of memory; stop other processes and run the same command again; finished stages are kept\n",
        ),
        (
            of_a_gpu,
            "samif: out of GPU memory; stop other processes that use the GPU, or compute on the CPU with "
            "CUDA_VISIBLE_DEVICES= before the command; finished stages are kept\n",
        ),
    ],
)
def test_a_command_that_runs_out_says_what_to_do(
    act: Callable[[], object], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", act)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (1, sentence)
