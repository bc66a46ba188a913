"""The protocol against the stages: the same shots give the same scores, whatever was kept and whatever was cut off."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from flows.protocol.flow import Plan, line_of, run_protocol
from flows.protocol.report import cells, write
from flows.stages import run_stage
from flows.workspace.edit import add_background, remove_session
from flows.workspace.layout import Layout
from samif.classifier.model import Classifier
from samif.config import BASE, CocoSource, Params, load_params
from samif.errors import SamifError
from samif.evaluate.model import Evaluation
from samif.protocol.run import Score
from samif.protocol.summary import Mean, mean_of, summarise
from tests.support.console import samif

BASES = ["hex_nut", "washer", "gear"]
SESSIONS = {
    "s1": {"after": "base", "classes": ["wing_nut", "t_pipe"], "shots": 2, "seed": 1},
    "s2": {"after": "s1", "classes": ["hook"], "shots": 2, "seed": 1},
}


@dataclass(frozen=True)
class Workspace:
    layout: Layout

    @property
    def params(self) -> Params:
        return load_params(self.layout.params)

    def run(self, *stages: str, session: str | None = None) -> None:
        for stage in stages:
            run_stage(stage, session, self.layout, self.params)


def params_text(root: Path, **sections: Any) -> Path:
    content = {
        "line": "small",
        "dataset": {
            "drawn": {"base_images": 10, "mixed_images": 10, "val_images": 6, "size": 160},
            "base_classes": BASES,
        },
        "pretrain_decoder": {"steps": 2, "images_per_step": 2},
        "propose": {"points": 24},
        "train_base": {"features": ["pooled", "token"], "background_prototypes": 4},
        "incremental": {"prompts_per_shot": 2, "rotations": [90]},
        "sessions": SESSIONS,
        **sections,
    }
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    return root / "params.yaml"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose stages have all run."""
    root = tmp_path_factory.mktemp("protocol")
    params_text(root)
    line = Workspace(Layout(root))
    line.run("dataset", "embed", "pretrain_decoder", "propose", "train_base", "evaluate_base")
    for name in SESSIONS:
        line.run("session", "evaluate", session=name)
    return line


@pytest.fixture
def fresh(line: Workspace) -> Workspace:
    """The same without anything that the protocol kept."""
    shutil.rmtree(line.layout.state / "protocol", ignore_errors=True)
    params_text(line.layout.root)
    return line


def files(line: Workspace, pattern: str) -> list[Path]:
    return sorted((line.layout.state / "protocol").glob(pattern))


def bare(scores: list[Score]) -> list[dict[str, Any]]:
    """Scores without how long they took."""
    return [score.model_dump(exclude={"seconds_per_class"}) for score in scores]


def test_the_same_shots_score_as_in_the_stages(fresh: Workspace) -> None:
    """Features in another order of columns, taken at another time, from a pool for more shots and seeds."""
    found = run_protocol(fresh.layout, fresh.params, Plan((1, 2), (0, 1)))
    assert [(s.shots, s.seed, s.session) for s in found] == [
        (0, 0, BASE), *((k, seed, name) for k in (1, 2) for seed in (0, 1) for name in SESSIONS),
    ]  # fmt: skip
    for name, score in ((BASE, found[0]), ("s1", found[-2]), ("s2", found[-1])):
        stage = Evaluation.load(fresh.layout.evaluation(name) / "evaluation.json")
        assert score.ap == stage.ap and score.ap50 == stage.ap50 and score.unknown == stage.unknown
        assert score.base_only == stage.base_only.ap and score.classes == len(stage.per_class)
    assert {score.unknown.objects for score in found if score.session == "s2"} != {found[0].unknown.objects}


def test_what_is_kept_is_not_done_again_and_what_was_cut_off_is(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan((1, 2), (0,))
    whole = run_protocol(fresh.layout, fresh.params, plan)
    (kept,) = files(fresh, "*.jsonl")
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == len(whole)
    kept.write_text("".join(lines[:-1]) + lines[-1][:40])
    monkeypatch.setattr("flows.protocol.features._collect", _never)
    monkeypatch.setattr("flows.protocol.features._extract", _never)
    again = run_protocol(fresh.layout, fresh.params, plan)
    assert bare(again) == bare(whole)
    monkeypatch.setattr("flows.protocol.flow.base_of", _never)
    assert run_protocol(fresh.layout, fresh.params, plan) == again


def _never(*_: object) -> None:
    raise AssertionError("this was to be kept")


def test_more_seeds_look_only_at_what_is_new_and_a_damaged_pool_is_made_again(fresh: Workspace) -> None:
    first = run_protocol(fresh.layout, fresh.params, Plan((1,), (0,)))
    (pool,) = files(fresh, "*.safetensors")
    pool.write_bytes(pool.read_bytes()[:1000])
    more = run_protocol(fresh.layout, fresh.params, Plan((1,), (0, 1)))
    assert bare([more[0], *more[1:3]]) == bare(first)
    assert files(fresh, "*.safetensors") == [pool] and pool.stat().st_size > 1000


def test_a_session_that_teaches_something_else_is_scored_anew(fresh: Workspace) -> None:
    """Under the same name: what was kept is of other classes."""
    before = run_protocol(fresh.layout, fresh.params, Plan((1,), (0,)))
    params_text(fresh.layout.root, sessions={**SESSIONS, "s2": {**SESSIONS["s2"], "classes": ["fuse"]}})
    after = run_protocol(fresh.layout, fresh.params, Plan((1,), (0,)))
    assert before[-1].session == after[-1].session == "s2" and len(files(fresh, "*.jsonl")) == 2
    assert before[-1].ap.novel != after[-1].ap.novel


def test_shots_that_no_class_can_give_are_left_out_aloud(fresh: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    found = run_protocol(fresh.layout, fresh.params, Plan((1, 900), (0,)))
    assert {score.shots for score in found} == {0, 1}
    said = capfd.readouterr()
    assert "left out 900 shots: '" in said.err + said.out
    with pytest.raises(SamifError, match="no number of shots is left"):
        run_protocol(fresh.layout, fresh.params, Plan((900,), (0,)))


@pytest.mark.parametrize(
    ("sessions", "said"),
    [
        ({}, "has no session that teaches a class"),
        (
            {"s1": {**SESSIONS["s1"], "source": {"images": "i", "annotations": "a", "digest": "0" * 64}}},
            "session 's1' has images of its own",
        ),
    ],
)
def test_a_line_without_draws_is_refused(fresh: Workspace, sessions: dict[str, Any], said: str) -> None:
    params_text(fresh.layout.root, sessions=sessions)
    with pytest.raises(SamifError, match=said):
        line_of(fresh.layout, fresh.params)


def test_the_command_prints_a_table_and_writes_numbers_and_a_plot(fresh: Workspace) -> None:
    done = samif(fresh.layout.root, "protocol", "--shots", "1,2", "--seeds", "2")
    assert done.code == 0, done.err
    assert "novel AP" in done.out and "protocol.png" in done.out
    folder = fresh.layout.reports / "protocol"
    assert sorted(path.name for path in folder.iterdir()) == ["protocol.json", "protocol.md", "protocol.png"]
    content = json.loads((folder / "protocol.json").read_text())
    assert [(row["shots"], row["session"], row["seeds"]) for row in content["rows"]] == [
        (0, BASE, 1), (1, "s1", 2), (1, "s2", 2), (2, "s1", 2), (2, "s2", 2),
    ]  # fmt: skip
    assert content["protocol"] is None and content["published"] == []
    assert {peer["shots"] for peer in content["published_on_other_data"]} == {1}
    assert "not comparable" in (folder / "protocol.md").read_text()
    assert (folder / "protocol.png").read_bytes().startswith(b"\x89PNG")
    for wrong in ("0", "1,x", ""):
        assert samif(fresh.layout.root, "protocol", "--shots", wrong).code == 2


def test_rows_are_means_with_their_intervals(tmp_path: Path, fresh: Workspace) -> None:
    scores = run_protocol(fresh.layout, fresh.params, Plan((1,), (0, 1, 2)))
    rows = {row.session: row for row in summarise(scores)}
    values = [score.ap.base for score in scores if score.session == "s2"]
    mean = rows["s2"].measures["base_ap"]
    assert mean is not None and mean.count == 3 and mean.mean == pytest.approx(np.mean(values))  # type: ignore[arg-type]
    assert mean.half == pytest.approx(4.3026527 * np.std(values, ddof=1) / np.sqrt(3))  # type: ignore[arg-type]
    assert rows[BASE].forgetting is None and rows[BASE].measures["novel_ap"] is None
    assert cells([rows[BASE]])[0][:2] == ["-", BASE]
    write(tmp_path / "out", fresh.params, scores)
    assert (tmp_path / "out" / "protocol.json").is_file()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([None], None), ([4.0, None], Mean(4.0, None, 1)), ([3.0, 3.0], Mean(3.0, 0.0, 2))],
)
def test_a_mean_is_of_what_is_there(values: list[float | None], expected: Mean | None) -> None:
    assert mean_of(values) == expected


# Hard negatives


def test_what_was_wrongly_named_is_named_no_more(line: Workspace, tmp_path: Path) -> None:
    """Hooks, known after s2, are outlined as wrong: fewer of them are named; taking that back gives the old bytes."""
    params_text(line.layout.root)
    content = json.loads((line.layout.drawn / "train" / "annotations.json").read_text())
    hook = next(c["id"] for c in content["categories"] if c["name"] == "hook")
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == hook]
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    source = CocoSource(images=str(line.layout.drawn / "train" / "images"), annotations=str(tmp_path / "wrong.json"))
    counted = add_background(line.layout.root, "wrong", source)
    assert counted == len(content["annotations"]) > 2
    line.run("session", "evaluate", session="wrong")

    def load(name: str) -> Classifier:
        return Classifier.load(line.layout.classifier(name) / "classifier.safetensors")

    before, after = load("s2"), load("wrong")
    assert after.row_digests() == before.row_digests() and after.negatives.shape == (counted, before.rows.shape[1])
    scores = {name: Evaluation.load(line.layout.evaluation(name) / "evaluation.json") for name in ("s2", "wrong")}
    named = {name: sum(row[-2] for row in e.confusion.matrix) for name, e in scores.items()}
    assert named["wrong"] <= named["s2"]
    remove_session(line.layout.root, "wrong")
    assert "wrong" not in line.params.sessions


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("wrong", "--background"), 2, "needs --images and --annotations"),
        (("wrong=a", "--background", "--images", ".", "--annotations", "x"), 2, "give a name alone"),
        (("s1", "--background", "--images", ".", "--annotations", "params.yaml"), 1, "there is already a session 's1'"),
    ],
)
def test_background_sessions_are_refused(fresh: Workspace, words: tuple[str, ...], code: int, said: str) -> None:
    done = samif(fresh.layout.root, "session", "add", *words)
    assert done.code == code and said in " ".join(done.err.replace("│", " ").split())
