"""What libraries expect of the user of a process: a name, a home folder, warnings that do not end them, and an output
that takes every character."""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import sys
import warnings
from pathlib import Path

from flows.runtime.cache_dir import cache_folder, private_folder
from flows.runtime.writable import is_writable


def prepare_user() -> None:
    """Make up for a user without an entry in the password database, as in containers that run under any user id, for
    one without a home folder or with one relative to the current folder, for PYTHONWARNINGS that turns warnings into
    errors, and for a terminal whose encoding lacks characters. Processes that this one starts inherit it. Call it
    before libraries are imported."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"  # DVC and torch name folders by it
    if home := os.environ.get("HOME"):
        os.environ["HOME"] = os.path.abspath(home)  # DVC refuses a relative one
    else:
        os.environ.pop("HOME", None)  # an empty one stands for the root folder
        try:
            Path.home()
        except RuntimeError:
            with contextlib.suppress(OSError):
                os.environ["HOME"] = str(private_folder())
    _keep_matplotlib_quiet()
    _let_libraries_warn()
    if isinstance(sys.stdout, io.TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        if sys.stdout.errors == "strict" or (sys.stdout.errors == "surrogateescape" and not utf8):
            sys.stdout.reconfigure(errors="replace")  # as standard error does


def _keep_matplotlib_quiet() -> None:
    """Name matplotlib a folder where it cannot write its own: it would warn in every process."""
    if os.environ.get("MPLCONFIGDIR"):
        return
    own = [
        Path(os.environ.get(variable) or f"~/{default}").expanduser() / "matplotlib"
        for variable, default in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
    ]
    if not all(map(is_writable, own)):
        with contextlib.suppress(OSError):
            os.environ["MPLCONFIGDIR"] = str(cache_folder("matplotlib"))


def _let_libraries_warn() -> None:
    """Undo a PYTHONWARNINGS that turns warnings into errors, such as those of DVC's libraries, back to Python's own
    filters."""
    if "error" not in os.environ.get("PYTHONWARNINGS", ""):
        return
    del os.environ["PYTHONWARNINGS"]
    warnings.resetwarnings()
    for unseen in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", unseen)
