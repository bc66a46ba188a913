"""Several lines on one registry and one embedding store: nothing is shared but what may be."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

import flows.cli.workspace  # noqa: F401
from flows.cli import app, promotion, registry  # noqa: F401  (register their commands)
from flows.embedding.flow import embed_images
from flows.registry.mlflow_store import MlflowStore
from flows.registry.ownership import FOUNDED, ForeignLineError, check, claim
from flows.store import open_store
from samif.config import Params
from samif.errors import ConfigError, SamifError
from samif.io.hashing import file_sha256
from tests.flows.workspace.test_edit import coco
from tests.support.tagged_line import TaggedLine

ID, OTHER = "0123456789abcdef", "fedcba9876543210"


def params(line: str = "pressed", base: tuple[str, ...] = ("bolt", "gear"), workspace: str | None = ID) -> Params:
    content: dict[str, Any] = {"line": line, "dataset": {"drawn": {}, "base_classes": list(base)}}
    return Params.model_validate(content | {"workspace": workspace})


@pytest.fixture
def store(tmp_path: Path, migrated: Path) -> MlflowStore:
    shutil.copy(migrated, tmp_path / "shared.db")
    return MlflowStore("sqlite:///shared.db", tmp_path)


def test_a_line_is_its_workspace_s_and_that_of_its_clones(store: MlflowStore) -> None:
    check(store, params())  # nobody's so far
    claim(store, params(), "ann")
    claim(store, params(base=("gear", "bolt")), "a clone on another machine")
    claim(store, params(line="drilled", workspace=OTHER), "bob")
    check(store, params())
    assert "by ann on 2" in store.model("pressed-decoder").tags[FOUNDED]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (params(workspace=OTHER), "belongs to another workspace .founded by ann on .*have 'workspace: 0123456789abcd"),
        (params(workspace=None), "belongs to another workspace"),
        (params(base=("bolt",)), "was founded by ann on .* with other base classes; restore 'dataset.base_classes'"),
    ],
)
def test_another_workspace_of_the_same_name_is_refused(store: MlflowStore, other: Params, sentence: str) -> None:
    claim(store, params(), "ann")
    before = store.model("pressed-decoder").tags
    for refused in (lambda: claim(store, other, "bob"), lambda: check(store, other)):
        with pytest.raises(ForeignLineError, match=sentence):
            refused()
    assert store.model("pressed-decoder").tags == before


@pytest.mark.parametrize("call", ["create_registered_model", "set_registered_model_tag"])
def test_an_answer_that_is_lost_claims_once(
    registry_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The registry does what it is asked, and the connection breaks before it can say so."""
    mine = params(line=call.replace("_", "-"))
    store, lost = MlflowStore(registry_server, tmp_path), list[str]()
    if call == "set_registered_model_tag":
        store.client.create_registered_model(f"{mine.line}-decoder")  # by hand: nobody's so far
    real = getattr(store.client, call)

    def answerless(*words: Any) -> Any:
        answer = real(*words)
        if len(lost) < 2:
            lost.append(call)
            raise requests.ConnectionError("broken off")
        return answer

    monkeypatch.setattr(store.client, call, answerless)
    claim(store, mine, "ann")
    check(store, mine)
    with pytest.raises(ForeignLineError, match="founded by ann"):
        claim(store, params(line=mine.line, workspace=OTHER), "bob")


def test_of_two_at_the_same_moment_one_owns_the_line(registry_server: str, tmp_path: Path) -> None:
    said: list[str] = []

    def come(number: int) -> None:
        try:
            mine = params(line="raced", workspace=f"{number:016x}")
            claim(MlflowStore(registry_server, tmp_path / str(number)), mine, str(number))
            said.append("mine")
        except ForeignLineError:
            said.append("foreign")

    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["foreign"] * 3 + ["mine"]


@pytest.mark.parametrize("name", ["demo-classifier", "demo-decoder", "demo-journal"])
def test_a_line_may_not_be_called_as_a_model_of_another(name: str) -> None:
    with pytest.raises(ValueError, match="which is that of a registered model of one"):
        params(line=name)


def test_capital_letters_in_the_name_of_a_line_are_named_as_the_reason(tmp_path: Path, migrated: Path) -> None:
    with pytest.raises(ValueError, match="expected a name without capital letters, got 'Demo'; write 'demo'"):
        params(line="Demo")
    line = TaggedLine(tmp_path / "Demo", migrated)
    for ref in ("Demo@challenger", "Demo-Classifier/3", "models:/Demo"):
        with pytest.raises(ConfigError, match="no capital letters, .* has some; write '(models:/)?demo"):
            line.registry.resolve(ref)
    with pytest.raises(ConfigError, match="does not name a version; write NAME, NAME/VERSION or NAME@alias"):
        line.registry.resolve("demo@a b")


def test_init_says_what_the_line_is_called(tmp_path: Path) -> None:
    data = coco(tmp_path / "data")
    words = ["init", str(tmp_path / "My Line"), "--train-images", data.images, "--train-annotations", data.annotations]
    done = CliRunner().invoke(app, [*words, "--session", "s1=hook", "--shots", "5"], catch_exceptions=False)
    assert done.exit_code == 0 and "line 'my-line': small letters, digits" in done.output


def test_what_one_line_encoded_the_other_reads(tmp_path: Path, migrated: Path) -> None:
    computed = []
    for name in ("first", "second"):
        line = TaggedLine(tmp_path / name, migrated, line=name)
        images = [(path, file_sha256(path)) for path in sorted((line.layout.drawn / "train" / "images").iterdir())]
        store = open_store(str(tmp_path / "embeddings"), line.layout.root)
        computed.append(embed_images(images, line.params.embed, line.params.encoder, store).computed)
    assert computed == [2, 0]


def command(line: TaggedLine, *words: str) -> str:
    done = CliRunner().invoke(app, ["registry", *words, "--workspace", str(line.layout.root)])
    assert done.exit_code == 0, done.output
    return done.output


def test_versions_aliases_and_journals_of_two_lines_stay_apart(tmp_path: Path, migrated: Path) -> None:
    shutil.copy(migrated, tmp_path / "shared.db")
    shared = f"sqlite:///{tmp_path}/shared.db"
    first = TaggedLine(tmp_path / "first", shared, line="apart-a")
    second = TaggedLine(tmp_path / "second", shared, line="apart-b")
    for line in (first, second):
        assert line.add("base", bolt=[9.0, *[0.0] * 7], gear=[0.0, 9.0, *[0.0] * 6]) == 1
    command(second, "promote", "apart-b/1", "--force")
    before = (second.registry.aliases("apart-b"), command(second, "history", "apart-b", "--json"))
    assert "champion" not in first.registry.aliases("apart-a")

    assert first.add("s1", "base", hook=[0.0, 0.0, 9.0, *[0.0] * 5]) == 2
    command(first, "promote", "apart-a/1", "--force")
    command(first, "promote", "apart-a/2", "--force")
    command(first, "rollback", "apart-a")
    assert first.registry.aliases("apart-a")["champion"] == 1
    assert (second.registry.aliases("apart-b"), command(second, "history", "apart-b", "--json")) == before
    assert [row.version for row in second.registry.versions("apart-b")] == [1]

    refused = CliRunner().invoke(app, ["registry", "promote", "apart-b/1", "--workspace", str(first.layout.root)])
    assert "apart-b-classifier is not of line 'apart-a'" in str(refused.exception)

    # one line's broken params.yaml is its own affair
    first.layout.params.write_text("line: 1\n")
    with pytest.raises(SamifError):
        _ = first.params
    assert "base" in command(second, "list")
