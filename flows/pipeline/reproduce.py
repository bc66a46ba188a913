"""Reproduction of a workspace by DVC."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.pipeline.dvc_remote import can_bring, with_retry, send, troubles
from flows.runtime.process import end_with
from flows.workspace.layout import Layout
from samif.errors import SamifError

FAILURE_VARIABLE = "SAMIF_FAILURE_FILE"
"""Names the file into which a stage under `samif run` writes its one sentence, so that it is shown once, last."""
RUN_VARIABLE = "SAMIF_RUN_PID"
"""Names that `samif run` to its stages."""

How = Literal["ran", "restored"]


@dataclass(frozen=True)
class StageOutcome:
    """One stage of a reproduction: `ran`, or `restored` from an earlier run with the same inputs; seconds of both."""

    stage: str
    how: How
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a reproduction did, in order; stages that were up to date are not listed."""

    stages: tuple[StageOutcome, ...]
    seconds: float


def leave_sentence(error: SamifError) -> bool:
    """Called by a stage that refuses: hand the sentence to the `samif run` above; False if there is none above."""
    path = os.environ.get(FAILURE_VARIABLE)
    if path is None:
        return False
    Path(path).write_text(str(error), encoding="utf-8")
    return True


def end_with_run() -> None:
    """Called by a stage: be interrupted when the `samif run` above dies, or the next run would meet it at work."""
    if RUN_VARIABLE in os.environ:
        end_with(int(os.environ[RUN_VARIABLE]))


def reproduce(root: Path, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run every stage that has to run, in order; a stage's own output passes through to the terminal.

    Args:
        root: the workspace; the caller holds `flows.workspace.lock.exclusive(root)`.
        say: called with one line when a stage starts or is restored.

    Raises:
        SamifError: a stage refused (its own sentence), died, or the pipeline cannot be read.
    """
    layout = Layout(root.resolve())
    failure = layout.state / "failure"
    layout.state.mkdir(exist_ok=True)
    failure.unlink(missing_ok=True)
    narrator = _Narrator(say)
    started = time.monotonic()
    with dvc_surroundings(layout.root, narrator, failure):
        from dvc.repo import Repo
        from dvc.stage.exceptions import StageCmdFailedError

        try:
            with contextlib.closing(Repo(str(layout.root))) as repo:
                pull = can_bring(repo, say)
                with_retry(repo, lambda: repo.reproduce(pull=pull))
                send(repo, say)
        except troubles() as error:
            narrator.close_stage()
            cause = error.__cause__ or error
            if failure.exists():
                raise SamifError(failure.read_text(encoding="utf-8")) from None
            if isinstance(cause, StageCmdFailedError):
                raise SamifError(
                    f"stage '{narrator.latest}' ended without a result ({_exit(cause)}), its messages stand above; "
                    "run 'samif run' again to go on from there"
                ) from None
            raise SamifError(f"the pipeline in {root} cannot run: {one_line(cause)}") from None
    narrator.close_stage()
    return Outcome(tuple(narrator.outcomes), time.monotonic() - started)


def one_line(error: BaseException) -> str:
    """The text of an error on one line, without a full stop at its end."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _exit(error: BaseException) -> str:
    code = int(str(error).rsplit(" ", 1)[-1])  # "failed to run: ..., exited with 137"
    # A shell reports a signal as 128 + its number, Python as its negative.
    signal = -code if code < 0 else code - 128
    if signal == 9:
        return "killed, perhaps for want of memory"
    return f"signal {signal}" if 0 < signal < 65 else f"exit code {code}"


class _Narrator(logging.Handler):
    """Follows DVC's log: the one place where it says whether a stage runs or comes out of the run cache."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say
        self.outcomes: list[StageOutcome] = []
        self.latest: str | None = None
        self._open: tuple[str, How, float] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        how: How | None = None
        if record.name == "dvc.stage.run" and str(record.msg).startswith("Running stage"):
            how = "ran"
        elif record.name == "dvc.stage.cache" and "is cached" in str(record.msg):
            how = "restored"
        elif record.name == "dvc.stage" and "didn't change" in str(record.msg):
            self.close_stage()
        if how is not None and isinstance(record.args, tuple):
            self.close_stage()
            self.latest = str(record.args[0])
            self._open = (self.latest, how, time.monotonic())
            self.say(f"stage {self.latest}" + (": restored from an earlier run" if how == "restored" else ""))

    def close_stage(self) -> None:
        if self._open is not None:
            stage, how, since = self._open
            self.outcomes.append(StageOutcome(stage, how, round(time.monotonic() - since, 3)))
            self._open = None


@contextlib.contextmanager
def dvc_surroundings(root: Path, log_handler: logging.Handler, failure: Path | None = None) -> Iterator[None]:
    """Inside, DVC prints nothing itself, logs to `log_handler`, names stages relative to `root` and starts them with
    this installation's `samif`; `failure` is the file for a stage's sentence. Changes the process: not for threads.
    """
    environment = {
        # The `samif` of this very installation, also when its environment is not activated.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "SHELL": "/bin/sh",  # DVC runs a stage in the person's login shell, which may be any
        "DVC_NO_ANALYTICS": "1",
    }
    if failure is not None:
        environment |= {FAILURE_VARIABLE: str(failure), RUN_VARIABLE: str(os.getpid())}
    before = {key: os.environ.get(key) for key in environment}
    import dvc.logger  # noqa: F401  (installs its own handlers on import, which are set aside below)

    log = logging.getLogger("dvc")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    os.environ.update(environment)
    log.handlers, log.propagate = [log_handler], False
    log.setLevel(logging.INFO)
    try:
        with contextlib.chdir(root):
            yield
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
