"""The DVC stages: each one reads its inputs, calls the method in `samif` and writes its outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import cast

from flows.runtime.cost import cost_of_process
from flows.runtime.system_errors import system_error
from flows.workspace.layout import Layout
from samif.config import BASE, Params
from samif.errors import ConfigError, SamifError
from samif.io import files
from samif.io.hashing import file_sha256

logger = logging.getLogger(__name__)

STAGES = (
    "dataset", "embed", "pretrain_decoder", "propose", "train_base", "session", "evaluate_base", "evaluate", "report"
)  # fmt: skip
OF_A_SESSION = ("session", "evaluate")


def run_stage(name: str, session: str | None, layout: Layout, params: Params) -> None:
    """Run one stage in a workspace.

    Raises:
        ConfigError: no such stage, or a session name is missing, unknown or not expected.
        OutOfMemory: memory ran out.
        SystemRefused: the disk is full, or the system refuses a file.
        SamifError: the error that the stage raised.
    """
    if name not in STAGES:
        raise ConfigError(f"there is no stage '{name}'; stages are {', '.join(STAGES)}")
    if (session is not None) != (name in OF_A_SESSION):
        raise ConfigError(f"stage '{name}' {'needs' if session is None else 'takes no'} session name")
    if session is not None and session not in params.sessions:
        raise ConfigError(f"there is no session '{session}' in {layout.params}; add it with 'samif session add'")
    module = import_module(f"flows.stages.{'evaluate' if name == 'evaluate_base' else name}")
    try:
        cast(Callable[[Layout, Params, str | None], None], module.run)(layout, params, session)
    except Exception as error:
        known = None if isinstance(error, SamifError) else system_error(error)
        if known is None:
            raise
        logger.info("stage %s was refused by the system", name, exc_info=True)
        raise known from None


def keep_cost(name: str, session: str | None, layout: Layout) -> None:
    """Write down what this process, which ran the stage, has cost. A full disk is no reason to fail afterwards."""
    known_by = {
        "pretrain_decoder": layout.decoder / "decoder.safetensors",
        "train_base": layout.classifier() / "classifier.safetensors",
        "session": layout.classifier(session or BASE) / "classifier.safetensors",
        "evaluate_base": layout.evaluation() / "evaluation.json",
        "evaluate": layout.evaluation(session or BASE) / "evaluation.json",
    }
    try:
        cost = cost_of_process(file_sha256(known_by[name]) if name in known_by else None)
        content = cost.model_dump_json(indent=1) + "\n"
        files.commit(layout.cost(name if session is None else f"{name}@{session}"), content.encode())
    except OSError:
        logger.warning("the cost of stage %s is not kept", name, exc_info=True)
