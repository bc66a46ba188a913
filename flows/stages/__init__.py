"""The DVC stages: each reads its inputs, calls the method in `samif`, and writes its outputs, nothing more."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from flows.runtime.tuning import keep_freed_memory
from flows.workspace.layout import Layout
from samif.config import Params
from samif.errors import SamifError

STAGES = (
    "dataset", "embed", "pretrain_decoder", "propose", "train_base", "session", "evaluate_base", "evaluate", "report"
)  # fmt: skip
OF_A_SESSION = ("session", "evaluate")


def run_stage(name: str, session: str | None, layout: Layout, params: Params) -> None:
    """Run one stage in a workspace.

    Raises:
        SamifError: no such stage, a session missing or unknown, or whatever the stage refuses.
    """
    if name not in STAGES:
        raise SamifError(f"there is no stage '{name}'; stages are {', '.join(STAGES)}")
    if (session is not None) != (name in OF_A_SESSION):
        raise SamifError(f"stage '{name}' {'needs' if session is None else 'takes no'} session name")
    if session is not None and session not in params.sessions:
        raise SamifError(f"there is no session '{session}' in {layout.params}; add it with 'samif session add'")
    keep_freed_memory()
    module = import_module(f"flows.stages.{'evaluate' if name == 'evaluate_base' else name}")
    cast(Callable[[Layout, Params, str | None], None], module.run)(layout, params, session)
