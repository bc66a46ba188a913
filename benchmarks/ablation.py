"""Every option of the classifier alone (put on the published mode) and together (taken off the default), on the same
features, proposals and draws: `python -m benchmarks.ablation --seeds 5 NAME=WORKSPACE...`.

A workspace is one that `samif run` has brought up to date. Scores are kept inside it, so an interrupted run goes on.
The tables go to benchmarks/ABLATION.md, or to `--out`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.protocol.flow import Plan, run_protocol
from flows.runtime.tuning import tune_process
from flows.workspace.layout import Layout
from samif.config import BASE, EvaluateParams, TrainBaseParams, load_params
from samif.protocol.run import Score, Variant
from samif.protocol.summary import MEASURES, Mean, mean_of

OUT = Path("benchmarks/ABLATION.md")
PUBLISHED: dict[str, Any] = {
    "features": ["token"], "head": "cosine", "background_prototypes": 1, "unknown_weight": 0.0, "rejection": 0.0,
    "duplicates": "nms",
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "pooled features beside the token": {"features": ["token", "pooled"]},
    "pooled features alone": {"features": ["pooled"]},
    "head: centred": {"head": "centred"},
    "head: lda": {"head": "lda"},
    "head: ranpac": {"head": "ranpac"},
    "16 background prototypes": {"background_prototypes": 16},
    "unknown class": {"unknown_weight": 2.0},
    "rejection of the least sure fifth": {"rejection": 0.2},
    "soft merging": {"duplicates": "soft"},
    "graph diffusion": {"duplicates": "diffusion"},
}
INSTEAD: dict[str, dict[str, Any]] = {
    "token alone": {"features": ["token"]},
    "the token beside pooled features": {"features": ["token", "pooled"]},
    "head: cosine": {"head": "cosine"},
    "head: centred": {"head": "centred"},
    "head: ranpac": {"head": "ranpac"},
    "1 background prototype": {"background_prototypes": 1},
    "no unknown class": {"unknown_weight": 0.0},
    "no rejection": {"rejection": 0.0},
    "non-maximum suppression": {"duplicates": "nms"},
    "soft merging": {"duplicates": "soft"},
}
COLUMNS = {
    "base AP": "base_ap", "novel AP": "novel_ap", "all AP": "all_ap", "novel AP50": "novel_ap50",
    "unknown AUROC": "unknown_auroc", "unlabelled FP": "unlabelled_false_positives_per_image",
}  # fmt: skip


def variant(changes: dict[str, Any]) -> Variant:
    """The defaults with these changes, each in the section that has it."""

    def section(model: Any) -> Any:
        return model.model_validate({k: v for k, v in changes.items() if k in model.model_fields})

    return Variant(section(TrainBaseParams), section(EvaluateParams))


def variants() -> dict[str, Variant]:
    """All rows of the tables, in order."""
    rows = {"published mode": variant(PUBLISHED)}
    rows |= {f"+ {name}": variant({**PUBLISHED, **changes}) for name, changes in OPTIONS.items()}
    rows["**default**"] = variant({})
    return rows | {f"default, {name}": variant(changes) for name, changes in INSTEAD.items()}


def main(
    workspaces: Annotated[list[str], typer.Argument(metavar="NAME=WORKSPACE")],
    seeds: Annotated[int, typer.Option(help="Draws of the shots.")] = 5,
    out: Annotated[Path, typer.Option(help="File that the tables are appended to.")] = OUT,
) -> None:
    """Measure every row on every workspace."""
    tune_process()
    for text in workspaces:
        name, _, folder = text.partition("=")
        layout = Layout(Path(folder).resolve())
        params = load_params(layout.params)
        shots = next(iter(params.sessions.values())).shots
        plan = Plan((shots,), tuple(range(seeds)))
        found = {row: run_protocol(layout, params, plan, how) for row, how in variants().items()}
        with out.open("a", encoding="utf-8") as file:
            file.write(_table(name, shots, found))


def _table(name: str, shots: int, found: dict[str, list[Score]]) -> str:
    last = found["**default**"][-1].session
    seeds = len({score.seed for score in found["**default**"] if score.session == last})
    lines = [
        f"\n## {name}: {shots} shot{'s' if shots > 1 else ''}, {seeds} draws\n",
        f"| | {' | '.join(COLUMNS)} | novel AP, difference to published | forgetting |",
        f"|---|{'---|' * (len(COLUMNS) + 2)}",
    ]
    published = _by_seed(found["published mode"], last)
    for row, scores in found.items():
        after = [score for score in scores if score.session == last]
        before = scores[0]
        assert before.session == BASE
        cells = []
        for column, key in COLUMNS.items():
            # objects of unknown classes are in the images only before the sessions
            measured = [before] if column in ("unknown AUROC", "unlabelled FP") else after
            digits = 2 if column in ("unknown AUROC", "unlabelled FP") else 1
            cells.append(_cell(mean_of([MEASURES[key](score) for score in measured]), digits))
        own = _by_seed(scores, last)
        cells.append(_cell(mean_of([own[seed] - published[seed] for seed in own]), 1))
        fall = [
            None if s.base_only is None or before.base_only is None else before.base_only - s.base_only for s in after
        ]
        cells.append(_cell(mean_of(fall), 1))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _by_seed(scores: list[Score], session: str) -> dict[int, float]:
    return {score.seed: score.ap.novel or 0.0 for score in scores if score.session == session}


def _cell(mean: Mean | None, digits: int) -> str:
    if mean is None:
        return "-"
    half = "" if mean.half is None else f" ± {mean.half:.{digits}f}"
    return f"{mean.mean:.{digits}f}{half}"


if __name__ == "__main__":
    typer.run(main)
