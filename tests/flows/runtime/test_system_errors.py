"""Errors of the operating system, in every form in which libraries pass them on, as one sentence."""

from __future__ import annotations

import errno
import os
import re
import resource
import sqlite3
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from flows.runtime.system_errors import system_error
from flows.stages import run_stage
from flows.workspace.layout import Layout
from samif.errors import DataError, OutOfMemory, SystemRefused

NUMBERS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "quota of this user is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "does not permit it",
    errno.ENAMETOOLONG: "too long for the file system",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "too many open files",
    errno.EFBIG: "ulimit -f",
    errno.EIO: "input/output error",
    errno.ESTALE: "network file system was lost",
}


def told(error: BaseException) -> str:
    """The one sentence, which names what to do."""
    known = system_error(error)
    assert known is not None, error
    assert "\n" not in str(known) and ";" in str(known)
    return str(known)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_has_a_sentence(number: int) -> None:
    sentence = told(OSError(number, os.strerror(number), "/data/line [alt] #2/a.bin"))
    assert NUMBERS[number] in sentence
    assert ("/data/line [alt] #2/a.bin" in sentence) == (number not in (errno.EMFILE, errno.ENFILE))


class PassedOn(Exception):
    """As DVC, MLflow and Ray wrap what they meet."""


def raised(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        raised(PassedOn("failed to reproduce"), FULL),
        raised(PassedOn("failed"), raised(PassedOn("deeper"), FULL)),
        PassedOn("failed", FULL),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        sqlite3.OperationalError("database or disk is full"),
        PassedOn("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed: No space left on device"),
    ],
)
def test_a_full_disk_in_the_words_of_libraries(error: Exception) -> None:
    assert "no space left on the disk" in told(error)


def test_an_error_of_a_worker() -> None:
    error = PassedOn("ray::EmbeddingWorker.embed() failed")
    error.cause = PermissionError(errno.EACCES, "Permission denied", b"/data/\xff.bin")  # type: ignore[attr-defined]
    assert "permission denied (/data/" in told(error)
    error.cause = DataError("a.png is empty; copy it again")  # type: ignore[attr-defined]
    assert isinstance(system_error(error), DataError)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), torch.OutOfMemoryError("CUDA")]
)
def test_memory(error: BaseException) -> None:
    assert isinstance(system_error(error), OutOfMemory)


def test_no_more_threads() -> None:
    assert "ulimit -u" in told(RuntimeError("can't start new thread"))


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RuntimeError("shape mismatch"), ValueError("28"), FileNotFoundError(2, "No such file", "a")],
)
def test_defects_stay_defects(error: Exception) -> None:
    assert system_error(error) is None


def test_what_was_dealt_with_is_no_cause() -> None:
    error = KeyError("x")
    error.__context__ = FULL
    assert system_error(error) is None


def test_libraries_at_a_limit_of_file_size(tmp_path: Path) -> None:
    """What they raise for real: a file above `ulimit -f`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(SafetensorError) as of_safetensors:
            save_file({"a": torch.zeros(1 << 18)}, tmp_path / "a.safetensors")
        with pytest.raises(OSError, match="File too large") as of_arrow, pa.OSFile(str(tmp_path / "a"), "wb") as file:
            file.write(bytes(1 << 18))
        with pytest.raises(OSError, match="File too large") as of_python:
            (tmp_path / "b").write_bytes(bytes(1 << 18))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for caught in (of_safetensors, of_arrow, of_python):
        assert "larger than this user or file system allows" in told(caught.value)


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile.mkdtemp()
    assert "set TMPDIR" in told(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_a_stage_refuses_with_the_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def run(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("flows.stages.import_module", lambda _: SimpleNamespace(run=run))
    with pytest.raises(SystemRefused, match=re.escape(NUMBERS[number])):
        run_stage("embed", None, Layout(tmp_path), None)  # type: ignore[arg-type]
