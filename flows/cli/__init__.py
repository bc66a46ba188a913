"""The command line `samif`: parse, call one function of `flows`, print.

Exit codes: 0 done, 1 refused or failed with one clear sentence, 2 wrong usage.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from typing import NoReturn

from flows.cli.app import app
from flows.runtime.progress import say
from flows.runtime.tuning import out_of_memory, tune_process
from samif.errors import SamifError

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point of the console script."""
    tune_process()
    # Each module registers its commands.
    from flows.cli import (  # noqa: F401
        data,
        data_import,
        init_coco2014,
        predict,
        promotion,
        protocol,
        registry,
        serve,
        store,
        store_add,
        submit,
        trigger,
        watch,
        weights,
        workspace,
    )

    try:
        app()
    except SamifError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to continue")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if (full := out_of_memory(error)) is not None:
            logger.info("out of memory", exc_info=True)
            _fail(str(full))
        with tempfile.NamedTemporaryFile("w", prefix="samif-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        _fail(f"internal error: {type(error).__name__}: {error}; please report it with the details in {file.name}")


def _fail(sentence: str) -> NoReturn:
    say(f"samif: {sentence}")
    raise SystemExit(1) from None
