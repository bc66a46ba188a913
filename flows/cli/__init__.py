"""The command line `samif`: parses, calls one function of `flows`, prints. Nothing is decided here.

Exit codes: 0 done, 1 refused or failed with one clear sentence, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from flows.cli.app import app
from flows.runtime.tuning import full_memory, wait_without_spinning
from samif.errors import SamifError

_FULL = {
    "memory": "out of memory; stop other processes and run the same command again; finished stages are kept",
    "GPU memory": "out of GPU memory; stop other processes that use the GPU, or compute on the CPU with "
    "CUDA_VISIBLE_DEVICES= before the command; finished stages are kept",
}


def main() -> None:
    """Entry point of the console script."""
    wait_without_spinning()
    # Each registers its commands.
    from flows.cli import (  # noqa: F401
        data,
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
        _say(str(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _say("interrupted; run the same command again to go on")
        raise SystemExit(1) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if (memory := full_memory(error)) is not None:
            _say(_FULL[memory])
            raise SystemExit(1) from None
        with tempfile.NamedTemporaryFile("w", prefix="samif-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        _say(f"internal error (please report it): {type(error).__name__}: {error}; details are in {file.name}")
        raise SystemExit(1) from None


def _say(sentence: str) -> None:
    print(f"samif: {sentence}", file=sys.stderr)
