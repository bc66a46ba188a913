"""The command line `samif`: parse, call one function of `flows`, print.

Exit codes: 0 done, 1 refused or failed with one clear sentence, 2 wrong usage, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import traceback
from typing import NoReturn

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell: 128 and the number of the signal."""

try:
    from flows.cli.app import app
    from flows.runtime.progress import say
    from flows.runtime.system_errors import system_error
    from flows.runtime.tuning import tune_process
    from flows.runtime.user import prepare_user
    from samif.errors import SamifError
except KeyboardInterrupt:
    raise SystemExit(INTERRUPTED) from None

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point of the console script."""
    try:
        _run()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends it at once
        from flows.runtime.process import RUN_VARIABLE

        if RUN_VARIABLE not in os.environ:  # else its 'samif run' says so
            say("samif: interrupted; run the same command again to continue")
        raise SystemExit(INTERRUPTED) from None


def _run() -> None:
    tune_process()
    prepare_user()
    # Each module registers its commands.
    from flows.cli import (  # noqa: F401
        cancel,
        console,
        data,
        data_import,
        errors,
        init_coco2014,
        predict,
        promotion,
        protocol,
        prune,
        registry,
        serve,
        store,
        store_add,
        submit,
        suggest,
        trigger,
        watch,
        weights,
        workspace,
    )

    try:
        try:
            app()
        except SystemExit as end:  # so Typer ends every command, also an interrupted one
            if end.code == INTERRUPTED:
                raise KeyboardInterrupt from None
            _flush()  # while an error can still be told
            raise
    except SamifError as error:
        _fail(str(error))
    except BrokenPipeError:
        _fail(None)
    except Exception as error:
        if (known := system_error(error)) is not None:
            logger.info("refused by the system", exc_info=True)
            _fail(str(known))
        details = _details(error)
        _fail(f"internal error: {type(error).__name__}: {error}; please report it with the details in {details}")


def _details(error: Exception) -> str:
    """Write the traceback to a file; its name."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="samif-", suffix=".txt", delete=False, errors="replace") as file:
            traceback.print_exception(error, file=file)
        return file.name
    except OSError:
        traceback.print_exception(error)
        return "the lines above"


def _fail(sentence: str | None) -> NoReturn:
    """End with a sentence, if there is anything to say; what standard output does not take is dropped."""
    if sentence is not None:
        say(f"samif: {sentence}")
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None


def _flush() -> None:
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()
