"""Reproduction of a workspace by DVC."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.pipeline.dvc_remote import dvc_errors, one_line, pull_run_cache, push_results, with_retry
from flows.runtime.cost import read_cost
from flows.runtime.process import RUN_VARIABLE, end_with
from flows.runtime.system_errors import system_error
from flows.workspace.layout import Layout
from samif.errors import SamifError

if TYPE_CHECKING:
    from dvc.stage import Stage

FAILURE_VARIABLE = "SAMIF_FAILURE_FILE"
"""Names the file into which a stage under `samif run` writes its one sentence, so that it is shown once, last."""
_RESERVED_BYTES = 4096
_INTERRUPTED = f"signal {int(signal.SIGINT)}"

How = Literal["ran", "restored"]


class StageFailed(SamifError):
    """A stage refused, or ended without a result."""


@dataclass(frozen=True)
class StageOutcome:
    """One stage of a reproduction: `ran`, or `restored` from an earlier run with the same inputs; seconds of both, and
    the content of a `Cost` of one that ran."""

    stage: str
    how: How
    seconds: float
    cost: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a reproduction did, in order; stages that were up to date are not listed."""

    stages: tuple[StageOutcome, ...]
    seconds: float


def write_failure(error: SamifError) -> bool:
    """Called by a stage that refuses: pass the sentence to its `samif run`; False if there is none."""
    path = os.environ.get(FAILURE_VARIABLE)
    if path is None:
        return False
    sentence = str(error).encode(errors="backslashreplace")
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)  # into the space that is reserved: the disk may be full
    try:
        os.write(file, sentence)
        os.ftruncate(file, len(sentence))
    finally:
        os.close(file)
    return True


def _reserve(failure: Path) -> None:
    """Take the space for a stage's sentence."""
    failure.write_bytes(b" " * _RESERVED_BYTES)


def end_with_run() -> None:
    """Called by a stage: be interrupted when its `samif run` dies, so that the next run does not meet it at work."""
    if RUN_VARIABLE in os.environ:
        end_with(int(os.environ[RUN_VARIABLE]))


def reproduce(
    root: Path, say: Callable[[str], None] = lambda _: None, finished: Callable[[StageOutcome], None] = lambda _: None
) -> Outcome:
    """Run every stage that has to run, in order; a stage's own output passes through to the terminal.

    Args:
        root: the workspace; the caller holds `flows.workspace.lock.exclusive(root)`.
        say: called with one line when a stage starts or is restored.
        finished: called after each stage that ran or was restored.

    Raises:
        StageFailed: a stage refused (its own sentence), died, or the pipeline cannot be read.
        ServiceUnavailable: the results are here, but DVC's remote does not take them.
    """
    layout = Layout(root.resolve())
    failure = layout.state / "failure"
    layout.state.mkdir(exist_ok=True)
    _reserve(failure)
    recorder = _Recorder(say, layout, finished)
    started = time.monotonic()
    with dvc_environment(layout.root, failure):
        from dvc.repo import Repo
        from dvc.stage.exceptions import StageCmdFailedError

        try:
            with contextlib.closing(Repo(str(layout.root))) as repo:
                pull = pull_run_cache(repo, say)
                recorder.watch(repo)
                with_retry(repo, lambda: repo.reproduce(pull=pull, repro_fn=recorder.reproduce))
                push_results(repo, say)
        except dvc_errors() as error:
            cause = error.__cause__ or error
            if sentence := failure.read_text(encoding="utf-8").strip():
                raise StageFailed(sentence) from None
            if isinstance(cause, StageCmdFailedError):
                if _exit(cause) == _INTERRUPTED:
                    raise KeyboardInterrupt from None
                raise StageFailed(
                    f"stage '{recorder.latest}' ended without a result ({_exit(cause)}), its messages stand above; "
                    "run 'samif run' again to go on from there"
                ) from None
            if (known := system_error(error)) is not None:
                raise known from None
            raise StageFailed(f"the pipeline in {root} cannot run: {one_line(cause)}") from None
        finally:
            failure.unlink(missing_ok=True)
    return Outcome(tuple(recorder.outcomes), time.monotonic() - started)


def _exit(error: BaseException) -> str:
    """How a stage's process ended. DVC says that in the text of the error only ("..., exited with 137"), so pyproject
    bounds its version and a test kills a stage."""
    found = re.search(r"(-?\d+)$", str(error))
    if found is None:
        return one_line(error)
    code = int(found[1])
    # A shell reports a signal as 128 + its number, Python as its negative.
    number = -code if code < 0 else code - 128
    if number == 9:
        return "killed, possibly out of memory"
    return f"signal {number}" if 0 < number < 65 else f"exit code {code}"


class _Recorder:
    """Records what DVC does with each stage, by the two calls in which it does it: `Stage.reproduce`, and the run
    cache's `restore`, which returns where it has the results and raises RunCacheNotFoundError where the stage runs."""

    def __init__(self, say: Callable[[str], None], layout: Layout, finished: Callable[[StageOutcome], None]) -> None:
        self._say, self._layout, self._finished = say, layout, finished
        self.outcomes: list[StageOutcome] = []
        self.latest: str | None = None
        self._how: How | None = None

    def watch(self, repo: Any) -> None:
        """Look on at a repository's run cache."""
        from dvc.stage.cache import RunCacheNotFoundError

        restore = repo.stage_cache.restore

        def recorded(stage: Stage, **options: Any) -> None:
            try:
                restore(stage, **options)
            except RunCacheNotFoundError:
                self._how = "ran"
                self._say(f"stage {stage.addressing}")
                raise
            self._how = "restored"
            self._say(f"stage {stage.addressing}: restored from an earlier run")

        repo.stage_cache.restore = recorded

    def reproduce(self, stage: Stage, **options: Any) -> Stage | None:
        """Bring one stage up to date, as DVC does where it is given no function of its own."""
        started, at = time.monotonic(), datetime.now(UTC)
        self.latest, self._how = stage.addressing, None
        done: Stage | None = stage.reproduce(**options)
        if done:
            done.dump(update_pipeline=False)
        if self._how is not None:
            seconds = round(time.monotonic() - started, 3)
            cost = read_cost(self._layout.cost(stage.addressing)) if self._how == "ran" else None
            kept = None if cost is None or cost.ended < at else cost.model_dump(mode="json", exclude={"made"})
            self.outcomes.append(StageOutcome(stage.addressing, self._how, seconds, kept))
            self._finished(self.outcomes[-1])
        return done


@contextlib.contextmanager
def dvc_environment(root: Path, failure: Path | None = None) -> Iterator[None]:
    """Inside, DVC prints nothing itself, names stages relative to `root` and starts them with this installation's
    `samif`; `failure` is the file for a stage's sentence. Changes the process: not for threads.
    """
    environment = {
        # The `samif` of this very installation, also when its environment is not activated; and a shell's own programs,
        # which start it (.dvc/samif), whatever PATH holds.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), os.defpath]),
        "SHELL": "/bin/sh",  # DVC runs a stage in the person's login shell, which may be any
        "DVC_NO_ANALYTICS": "1",
    }
    if failure is not None:
        environment |= {FAILURE_VARIABLE: str(failure), RUN_VARIABLE: str(os.getpid())}
    before = {key: os.environ.get(key) for key in environment}
    import dvc.logger  # noqa: F401  (installs its own handlers on import, which are replaced below)

    log = logging.getLogger("dvc")
    handlers, propagate = log.handlers[:], log.propagate
    os.environ.update(environment)
    log.handlers, log.propagate = [logging.NullHandler()], False
    try:
        with contextlib.chdir(root):
            yield
    finally:
        log.handlers, log.propagate = handlers, propagate
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
