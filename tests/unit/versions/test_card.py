from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from samif.errors import SamifError
from samif.evaluate.model import Evaluation
from samif.versions.card import Card, Inference, evaluation_digest


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def content(name: str = "base", after: str | None = None, classes: tuple[str, ...] = ("bolt", "nut")) -> dict[str, Any]:
    parts = ("dataset", "params", "encoder", "decoder", "classifier", "evaluation")
    return {
        "line": "demo",
        "name": name,
        "after": after,
        "classes": classes,
        "identity": {part: sha(part) for part in parts},
        "rows": {cls: sha(cls) for cls in classes},
        "encoder": {"name": "tiny", "digest": sha("encoder"), "checkpoint": None, "precision": "float32"},
        "decoder": {"sha256": sha("decoder")},
        "pretrain_classes": "base",
        "provenance": {
            "created": datetime(2024, 5, 1, tzinfo=UTC),
            "who": "ann",
            "why": "first",
            "commit": None,
            "dvc_lock": None,
            "data_revision": None,
            "samif": "0.1.0",
        },
    }


def test_digest_ignores_the_circumstances() -> None:
    first = Card.model_validate(content())
    again = content()
    again["provenance"] |= {"who": "bob", "why": "rerun", "commit": "c0ffee", "mlflow_run": "42"}
    assert Card.model_validate(again).digest == first.digest


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("line", "other"),
        ("classes", ("nut", "bolt")),
        ("rows", {"bolt": sha("bolt"), "nut": sha("changed")}),
        ("encoder", {"name": "tiny", "digest": sha("encoder"), "checkpoint": sha("weights")}),
        ("pretrain_classes", "all"),
        ("identity", content()["identity"] | {"dataset": sha("more images")}),
        ("identity", content()["identity"] | {"params": sha("other")}),
        ("identity", content()["identity"] | {"evaluation": sha("other")}),
    ],
)
def test_digest_covers_everything_else(key: str, value: Any) -> None:
    assert Card.model_validate(content() | {key: value}).digest != Card.model_validate(content()).digest


def test_digest_is_the_documented_canonical_json() -> None:
    """Golden value: the digest is a contract with versions that are registered already."""
    document = content() | {"schema": 1, "inference": Inference().model_dump(mode="json")}
    del document["provenance"]
    text = json.dumps([document], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert Card.model_validate(content()).digest == hashlib.sha256(text.encode()).hexdigest()


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True), st.text(max_size=20))
def test_saved_and_loaded_is_the_same_card(tmp_path_factory: Any, classes: list[str], why: str) -> None:
    path = tmp_path_factory.mktemp("card") / "card.json"
    card = Card.model_validate(content(classes=tuple(classes)))
    card = card.model_copy(update={"provenance": card.provenance.model_copy(update={"why": why})})
    card.save(path)
    assert Card.load(path) == card
    assert Card.load(path).digest == card.digest
    assert [item.name for item in path.parent.iterdir()] == ["card.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"after": "s0"}, "after"),
        ({"name": "s1"}, "after"),
        ({"classes": ("bolt", "bolt")}, "rows"),
        ({"rows": {"bolt": sha("bolt")}}, "rows"),
        ({"decoder": {"sha256": sha("another")}}, "identity"),
        ({"encoder": {"name": "tiny", "digest": sha("another"), "checkpoint": None}}, "identity"),
        ({"pretrain_classes": "some"}, "pretrain_classes"),
        ({"surprise": 1}, "surprise"),
        ({"schema": 2}, "schema"),
    ],
)
def test_a_card_that_disagrees_with_itself_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Card.model_validate(content() | change)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "\x00"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(
        SamifError, match=r"card\.json is damaged, or not the card of a version, at .*register the version again"
    ):
        Card.load(path)


def test_a_flipped_digest_digit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    Card.model_validate(content()).save(path)
    path.write_text(path.read_text().replace(sha("decoder"), sha("decoder")[:-1] + "g"))
    with pytest.raises(SamifError, match=r"at identity\.decoder"):
        Card.load(path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="does not exist"):
        Card.load(tmp_path / "card.json")


def session(**change: Any) -> Card:
    return Card.model_validate(content("s1", "base", ("bolt", "nut", "washer")) | change)


BASE = Card.model_validate(content())


def test_a_session_that_only_adds_follows() -> None:
    BASE.check_follows(None)
    session().check_follows(BASE)


@pytest.mark.parametrize("cls", ["bolt", "nut"])
def test_a_changed_old_row_is_refused(cls: str) -> None:
    rows = session().rows | {cls: sha("moved by one bit")}
    with pytest.raises(SamifError, match=f"changes the rows of {cls} that 'base'"):
        session(rows=rows).check_follows(BASE)


def test_a_new_row_may_be_anything() -> None:
    session(rows=session().rows | {"washer": sha("anything")}).check_follows(BASE)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_another_frozen_part_is_refused(part: str) -> None:
    other = sha("another")
    value = {"sha256": other} if part == "decoder" else {"name": "tiny", "digest": other, "checkpoint": None}
    card = session(identity=content()["identity"] | {part: other}, **{part: value})
    with pytest.raises(SamifError, match=f"another {part} than 'base'"):
        card.check_follows(BASE)


SEMANTIC = {
    "name": "vit_small_patch14_dinov2",
    "digest": sha("semantic"),
    "preprocessing": sha("how"),
    "checkpoint": sha("semantic file"),
    "size": None,
}


@pytest.mark.parametrize(
    ("before", "after", "follows"),
    [
        (SEMANTIC, SEMANTIC, True),
        (SEMANTIC, SEMANTIC | {"checkpoint": sha("the same weights as .pth")}, True),
        (SEMANTIC, SEMANTIC | {"digest": sha("other weights")}, False),
        (SEMANTIC, SEMANTIC | {"preprocessing": sha("another size")}, False),
        (SEMANTIC, None, False),
        (None, SEMANTIC, False),
    ],
)
def test_the_semantic_encoder_stays_frozen_along_a_chain(before: Any, after: Any, follows: bool) -> None:
    base = Card.model_validate(content() | {"semantic": before})
    if follows:
        session(semantic=after).check_follows(base)
    else:
        with pytest.raises(SamifError, match="made with another semantic encoder than 'base'"):
            session(semantic=after).check_follows(base)


def test_a_semantic_encoder_is_part_of_a_cards_identity_and_none_leaves_no_trace(tmp_path: Path) -> None:
    card = Card.model_validate(content() | {"semantic": SEMANTIC})
    card.save(tmp_path / "card.json")
    assert Card.load(tmp_path / "card.json") == card
    assert len({one.digest for one in (BASE, card, Card.model_validate(content() | {"semantic": None}))}) == 2
    assert "semantic" not in BASE.model_dump()


@pytest.mark.parametrize("classes", [("nut", "bolt", "washer"), ("bolt", "washer"), ("washer", "bolt", "nut")])
def test_old_rows_stay_in_place(classes: tuple[str, ...]) -> None:
    with pytest.raises(SamifError, match="drops or reorders"):
        session(classes=classes, rows={cls: sha(cls) for cls in classes}).check_follows(BASE)


def test_the_previous_card_must_be_the_named_one() -> None:
    with pytest.raises(SamifError, match="given is none"):
        session().check_follows(None)
    with pytest.raises(SamifError, match="given is the card of 's1'"):
        session(after="s0").check_follows(session())
    with pytest.raises(SamifError, match="after None"):
        BASE.check_follows(BASE)


def test_weight_files_are_checked(tmp_path: Path) -> None:
    classifier, decoder = tmp_path / "c", tmp_path / "d"
    classifier.write_text("classifier")  # sha("classifier") is what the card says
    decoder.write_text("decoder")
    BASE.check_files(classifier, decoder)
    decoder.write_text("decoder ")
    with pytest.raises(SamifError, match="is not the decoder of card 'base'"):
        BASE.check_files(classifier, decoder)
    classifier.unlink()
    with pytest.raises(SamifError, match="No such file"):
        BASE.check_files(classifier, decoder)


def test_evaluation_digest_ignores_seconds_only() -> None:
    document = {
        "name": "base",
        "classes": {"base": ["bolt"], "novel": []},
        "images": 1,
        "dataset": sha("val"),
        "ap": {"base": 50.0, "novel": None, "all": 50.0},
        "ap50": {"base": 70.0, "novel": None, "all": 70.0},
        "per_class": {"bolt": {"ap": 50.0, "ap50": 70.0, "instances": 3, "group": "base"}},
        "base_only": {"images": 1, "ap": 50.0, "ap50": 70.0},
        "unknown": {"auroc": None, "unlabelled_false_positives_per_image": None, "objects": 0},
        "confusion": {"labels": ["bolt", "background"], "matrix": [[1, 0], [0, 0]]},
        "operating_score": 0.3,
        "seconds": 1.0,
    }
    first = evaluation_digest(Evaluation.model_validate(document))
    assert evaluation_digest(Evaluation.model_validate(document | {"seconds": 2.0})) == first
    assert evaluation_digest(Evaluation.model_validate(document | {"operating_score": 0.31})) != first
