"""What each command says after somebody deleted, renamed or moved something on MLflow's pages; on a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import flows.cli.predict
import flows.cli.promotion
import flows.cli.serve  # noqa: F401
from flows.cli import app
from flows.registry.ownership import check, claim
from flows.registry.verification import verify
from samif.errors import SamifError
from tests.support.tagged_line import TaggedLine

LINE, MODEL = "told", "told-classifier"


def said(line: TaggedLine, *words: str) -> str:
    """What a command prints, or the sentence of its refusal; never another kind of error."""
    ran = CliRunner().invoke(app, [*words, "--workspace", str(line.layout.root)])
    if isinstance(ran.exception, SamifError):
        sentence = str(ran.exception)
        assert "\n" not in sentence and "Traceback" not in sentence and len(sentence) < 500
        return f"refused: {sentence}"
    assert ran.exit_code == 0, (words, ran.output, ran.exception)
    return " ".join(ran.output.split())


def registered(line: TaggedLine) -> str:
    """What `samif run` says as it looks at the line, at first and at its end."""
    store, told = line.registry._store, []
    for step in (lambda: check(store, line.params), lambda: claim(store, line.params, "ann")):
        try:
            step()
        except SamifError as error:
            told.append(f"refused: {error}")
    return told[0] if told else line.registry.hand_move(LINE) or ""


def commands(line: TaggedLine) -> dict[str, str]:
    """Every command that reads a version, and what it says."""
    image = str(next((line.layout.drawn / "val" / "images").iterdir()))
    champion = f"{LINE}@champion"
    return {
        "run": registered(line),
        "list": said(line, "registry", "list"),
        "history": said(line, "registry", "history", LINE),
        "compare": said(line, "registry", "compare", champion, f"{LINE}/3"),
        "promote": said(line, "registry", "promote", f"{LINE}/3"),
        "verify": said(line, "registry", "verify", champion),
        "serve": said(line, "serve", champion),
        "predict": said(line, "predict", image, "--model", champion, "--out", str(line.layout.root / "out")),
    }


@pytest.mark.slow
def test_each_case_on_a_server(tmp_path: Path, registry_server: str) -> None:
    line = TaggedLine(tmp_path / "line", registry_server, LINE)
    line.grow()
    client = line.registry._store.client
    for number in (1, 2, 4):
        said(line, "registry", "promote", f"{LINE}/{number}")

    # a renamed model
    for name in (MODEL, f"{LINE}-decoder"):
        client.rename_registered_model(name, "another")
        for command, sentence in commands(line).items():
            if name == MODEL or command == "run":
                assert "renamed or deleted in MLflow; rename it back there, or" in sentence, (command, sentence)
            if name == MODEL and command != "run":
                assert "told-decoder and told-journal and no" in sentence, (command, sentence)
        assert client.get_registered_model("another") and line.registry._store.find_model(name) is None
        client.rename_registered_model("another", name)
    client.rename_registered_model(f"{LINE}-journal", "another")
    assert "was tampered with: it had an entry" in said(line, "registry", "history", LINE)
    client.rename_registered_model("another", f"{LINE}-journal")

    # an alias that was moved
    client.set_registered_model_alias(MODEL, "champion", "2")
    moved = f"alias 'champion' of {MODEL} stands at 2, not by the journal, which says 4: 'samif registry adopt {LINE}'"
    assert moved in registered(line)
    for words in (
        ("list",),
        ("history", LINE),
        ("compare", f"{LINE}@champion", f"{LINE}/1"),
        ("verify", f"{LINE}@champion"),
    ):
        assert moved in said(line, "registry", *words), words
    assert f"alias 'champion' of {MODEL} stood at 2, not by the journal; put back" in said(
        line, "registry", "repair", LINE
    )

    # a deleted run: nothing is lost yet, and it is said
    run = line.registry._store.version(MODEL, 4).run_id
    client.delete_run(run)
    assert "the MLflow run of version 4 was deleted: restore it there" in said(line, "registry", "list")
    assert "run not reachable deleted in MLflow" in said(line, "registry", "verify", f"{LINE}/4")
    assert not [item for item in verify(line.registry, f"{LINE}/4") if item.state == "differs"]
    assert (line.registry.download(f"{LINE}/4", tmp_path / "four") / "card.json").is_file()
    client.restore_run(run)
    assert "was deleted" not in said(line, "registry", "list")

    # a logged model that was deleted: its files can no longer be found
    model_id = line.registry._store.version(MODEL, 3).tags["model_id"]
    client.delete_logged_model(model_id)
    for words in (("verify", f"{LINE}/3"), ("compare", f"{LINE}/2", f"{LINE}/3"), ("promote", f"{LINE}/3")):
        sentence = said(line, "registry", *words)
        assert f"refused: the logged model of {MODEL}/3 was deleted in MLflow" in sentence and "'samif run'" in sentence

    # the live version was deleted
    client.delete_model_version(MODEL, "4")
    told = commands(line)
    gone = f"{MODEL}/4, live by the journal, was deleted in MLflow: 'samif registry rollback {LINE}' restores 2, or"
    for command in ("run", "list", "history", "compare", "verify", "serve", "predict"):
        assert gone in told[command], (command, told[command])
    assert "has no version 4 (it has: 1, 2, 3)" in said(line, "registry", "verify", f"{LINE}/4")
    assert f"{MODEL}/2 is live; a rollback leads to 1" in said(line, "registry", "rollback", LINE)
    client.delete_model_version(MODEL, "1")
    assert f"refused: {MODEL} has no version 1" in said(line, "registry", "rollback", LINE)
