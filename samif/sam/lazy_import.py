"""The official package without what its front door brings along.

`segment_anything/__init__.py` imports predictor and mask generator, and with them torchvision and torch's compiler:
nearly half of the start of every stage, for modules that are not used here.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from typing import Any

PACKAGE = "segment_anything"


def defer_package() -> None:
    """Let `import segment_anything.modeling` load that alone; the package itself follows where it is asked for a name.

    Does nothing where the package is loaded already.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if PACKAGE in sys.modules:
        return
    spec = find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    loader, package = spec.loader, module_from_spec(spec)

    def load(name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these, whether they are there or not
            raise AttributeError(name)
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["__getattr__"] = load
    sys.modules[PACKAGE] = package
