"""Why each stage would run, from DVC's status; nothing is run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.pipeline.dvc_remote import one_line
from flows.pipeline.reproduce import dvc_environment
from flows.runtime.system_errors import system_error
from flows.workspace.dvc_yaml import leftovers, render_pipeline
from flows.workspace.layout import Layout
from flows.workspace.lock import busy_error
from flows.workspace.source_paths import check_sources
from samif.config import Params, load_params
from samif.errors import ConfigError


@dataclass(frozen=True)
class StageReason:
    """A stage in running order. `will_run` is an upper bound: a stage that follows another one is skipped
    when that one's result comes out the same.
    """

    stage: str
    will_run: bool
    reasons: tuple[str, ...]


def why(root: Path) -> list[StageReason]:
    """Every stage of the workspace in running order, with the reasons for which `samif run` would run it.

    Raises:
        SamifError: `root` is no workspace, its images or labels are missing, or its pipeline cannot be read.
    """
    layout = Layout(root.resolve())
    params = load_params(layout.params)
    check_sources(layout, params)
    return stage_reasons(layout, params)


def stage_reasons(layout: Layout, params: Params) -> list[StageReason]:
    """As `why`, also where images or labels are missing.

    Raises:
        SamifError: the pipeline cannot be read.
    """
    root = layout.root
    # Before the first run, or after an upgrade, dvc.yaml is not yet what a run would make of it.
    outdated = not layout.pipeline.exists() or layout.pipeline.read_text(encoding="utf-8") != render_pipeline(params)
    if outdated:
        return [StageReason("dvc.yaml", True, ("it is not what this version of samif writes; 'samif run' renews it",))]
    with dvc_environment(layout.root):
        import networkx
        from dvc.exceptions import DvcException
        from dvc.lock import LockError
        from dvc.repo import Repo

        try:
            with contextlib.closing(Repo(str(layout.root))) as repo:
                status = repo.status()
                graph = repo.index.graph
        except LockError:
            raise busy_error(root) from None
        except (DvcException, OSError) as error:
            if (known := system_error(error)) is not None:
                raise known from None
            raise ConfigError(f"the pipeline in {root} cannot be read: {one_line(error)}") from None
        order = list(networkx.lexicographical_topological_sort(graph.reverse(), key=_order(graph)))
        parents = {stage.addressing: [p.addressing for p in graph.successors(stage)] for stage in order}
        makers = {str(out): stage.addressing for stage in order for out in stage.outs}
        commands = {stage.addressing: str(stage.cmd) for stage in order}

    yaml = YAML(typ="safe")
    locked = (yaml.load(layout.lock.read_bytes()) or {}).get("stages", {}) if layout.lock.exists() else {}
    current = yaml.load(layout.params.read_bytes())
    # A run removes these before it calls DVC; until then DVC's status shows no change.
    removed = sorted({path.stem for path in leftovers(layout, params)})
    running: set[str] = set()
    result = []
    for name, above in parents.items():
        follows = [p for p in above if p in running]
        if name not in locked:
            own = ["new stage"] if locked else ["never run"]
        else:
            entries = [e for e in status.get(name, []) if isinstance(e, dict)] + [
                {e: {}} for e in status.get(name, []) if isinstance(e, str)
            ]
            own = [
                reason
                for entry in entries
                for reason in _reasons(entry, locked[name], current, commands[name], makers, running)
            ]
            if name == "report":
                own += [f"session {session} removed" for session in removed]
        reasons = (*own, *(f"follows {p}" for p in sorted(follows, key=list(parents).index)))
        if reasons:
            running.add(name)
        result.append(StageReason(name, bool(reasons), reasons))
    return result


def _order(graph: Any) -> Any:
    """Position in dvc.yaml, so that stages that do not depend on each other keep the file's order."""
    place = {stage: index for index, stage in enumerate(graph)}
    return place.__getitem__


def _reasons(
    entry: dict[str, Any], locked: dict[str, Any], current: dict[str, Any], command: str, makers: dict[str, str],
    running: set[str],
) -> Iterator[str]:  # fmt: skip
    """One entry of DVC's status, such as {"changed deps": {"params.yaml": {"encoder": "modified"}}}, in words."""
    if "changed command" in entry:
        yield _command_reason(str(locked.get("cmd", "")), command)
    for path, state in entry.get("changed deps", {}).items():
        if isinstance(state, dict):
            recorded = locked.get("params", {}).get(path, {})
            for key in state:
                yield from (f"params {line}" for line in _differences(key, recorded.get(key), _lookup(current, key)))
        elif path == "params.yaml":
            yield "params not recorded"
        elif makers.get(path) not in running:
            yield f"dependency {path} {'missing' if state == 'deleted' else 'changed'}"
    for path, state in entry.get("changed outs", {}).items():
        yield f"output {path} {'missing' if state == 'deleted' else state}"


def _command_reason(before: str, now: str) -> str:
    old, new = (re.search(r"--revision (\d+)", text) for text in (before, now))
    if old and new and old[1] != new[1]:
        return f"software revision {old[1]} -> {new[1]}"
    return "command changed"


def _lookup(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _differences(key: str, before: Any, now: Any) -> Iterator[str]:
    """Leaves that differ, as "sessions.s2.shots: 5 -> 10"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for part in dict.fromkeys([*before, *now]):
            yield from _differences(f"{key}.{part}", before.get(part), now.get(part))
    elif before != now:
        yield f"{key}: {_show(before)} -> {_show(now)}"


def _show(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
