"""params.yaml: what is refused, and how the refusal reads."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samif.config import EncoderParams, Params, ProposeParams, SessionParams, digest, load_params
from samif.config.params import REMOVED_KEYS, RENAMED_KEYS, RENAMED_VALUES
from samif.errors import SamifError


def params(**changes: Any) -> Params:
    return Params.model_validate({"line": "x", "dataset": {"drawn": {}, "base_classes": ["a", "b"]}} | changes)


def session(after: str, *classes: str) -> dict[str, Any]:
    return {"after": after, "classes": list(classes)}


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


HEAD = "line: x\ndataset: {drawn: {}, base_classes: [a, b]}\n"
SEMANTIC = f"model: vit_x, checkpoint: w.pth, sha256: {'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEAD + "embde: {}\n", "key 'embde': expected no such key"),
        (HEAD + "propose: {points: '64'}\n", "key 'propose.points': expected a valid integer, got '64'"),
        (HEAD + "propose: {points: 0}\n", "key 'propose.points': expected greater than or equal to 1, got 0"),
        (HEAD + "propose: {duplicate_iou: 1.01}\n", "key 'propose.duplicate_iou': .*less than or equal to 1, got 1.01"),
        (HEAD + "encoder: {name: vit_x}\n", "key 'encoder.name': expected 'tiny', 'photo', 'vit_b'.*got 'vit_x'"),
        (HEAD + "encoder: {sha256: ABC}\n", "key 'encoder.sha256'"),
        (
            HEAD + "encoder: {stored_as: bfloat16}\n",
            "key 'encoder.stored_as': expected 'float16' or 'int8', got 'bfloat16'",
        ),
        (HEAD + f"semantic: {{{SEMANTIC}, size: 96, layer: 3}}\n", "key 'semantic.layer': expected no such key, got 3"),
        (
            HEAD + "semantic: {model: vit_tiny_patch16_224}\n",
            "key 'semantic': expected 'checkpoint' and 'sha256' of network 'vit_tiny_patch16_224'",
        ),
        (HEAD + f"semantic: {{{SEMANTIC}, size: 15}}\n", "key 'semantic.size': .*greater than or equal to 16, got 15"),
        (HEAD + f"semantic: {{{SEMANTIC[:-1]}}}\n", "key 'semantic.sha256'"),
        (HEAD + f"semantic: {{{SEMANTIC.replace('vit', 'hf-hub:vit')}}}\n", "key 'semantic.model'.*got 'hf-hub:vit_x'"),
        (
            HEAD + "train_base: {features: [token, semantic]}\n",
            "key 'train_base': expected a section 'semantic' .*, got none",
        ),
        (HEAD + "sessions: {base: {after: base, classes: [c]}}\n", "may not be named 'base'"),
        (HEAD + "sessions: {s1: {after: base, classes: [a]}}\n", "class 'a' of session 's1' is already in the base"),
        (HEAD + "sessions: {s1: {after: s0, classes: [c]}}\n", "'s1' must come after 'base', not 's0'"),
        (HEAD + "sessions: {s1: {after: base, classes: [c, c]}}\n", "'c' of session 's1' is already in session 's1'"),
        (HEAD + "sessions: {s1: {after: base, classes: []}}\n", "key 'sessions.s1': expected 'classes'"),
        (HEAD + "sessions: {s1: {after: base, background: true}}\n", "takes no 'classes', and its labels from"),
        (
            HEAD + "sessions: {s1: {after: base, classes: [c]}, s2: {after: base, classes: [d]}}\n",
            "'s2' must come after 's1', not 'base'",
        ),
        ("line: X\ndataset: {drawn: {}, base_classes: [a]}\n", "key 'line'"),
        ("line: x\ndataset: {base_classes: [a]}\n", "give either 'drawn'"),
        ("line: x\ndataset: {drawn: {}, base_classes: [a, a]}\n", "names a class twice"),
        (
            "line: x\ndataset: {drawn: {}, train: {images: i, annotations: j}, base_classes: [a]}\n",
            "give either 'drawn'",
        ),
        ("line: x\n", "key 'dataset': expected a value, got nothing"),
        ("", "whole file"),
        ("- a\n", "whole file"),
        ("line: [\n", "is not readable YAML"),
    ],
)
def test_a_refusal_names_file_key_expected_and_got(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SamifError, match=sentence) as refusal:
        load_params(path)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_key_of_an_earlier_release_is_refused_with_its_new_name(tmp_path: Path, old: str, new: str) -> None:
    *sections, key = new.split(".")
    given = params().model_dump(mode="json")
    section = functools.reduce(operator.getitem, sections, given)
    section[old.rpartition(".")[2]] = section.pop(key)
    path = write(tmp_path, json.dumps(given))
    with pytest.raises(SamifError) as refusal:
        load_params(path)
    assert str(refusal.value) == f"{path}: key '{old}' is called '{new}' now; rename it"


@pytest.mark.parametrize("key", sorted(REMOVED_KEYS))
def test_a_removed_option_is_refused_in_one_sentence(tmp_path: Path, key: str) -> None:
    section, _, name = key.partition(".")
    given = params().model_dump(mode="json")
    given[section][name] = False
    path = write(tmp_path, json.dumps(given))
    with pytest.raises(SamifError) as refusal:
        load_params(path)
    assert str(refusal.value) == f"{path}: key '{key}' was removed, as it improved no result; delete it"


@pytest.mark.parametrize(("old", "new"), RENAMED_VALUES["watch.statistics"].items())
def test_a_value_of_an_earlier_release_is_refused_with_its_new_name(old: str, new: str, tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + f"watch: {{statistics: [objects, {old}]}}\n")
    with pytest.raises(SamifError) as refusal:
        load_params(path)
    assert str(refusal.value) == f"{path}: key 'watch.statistics.1': '{old}' is called '{new}' now; rename it"


def test_limits_themselves_pass(tmp_path: Path) -> None:
    p = load_params(write(tmp_path, HEAD + "propose: {points: 1, duplicate_iou: 1.0, min_objectness: 0.0}\n"))
    assert (p.propose.points, p.propose.duplicate_iou, p.propose.min_objectness) == (1, 1.0, 0.0)


def test_without_a_semantic_encoder_parameters_are_what_they_were(tmp_path: Path) -> None:
    """A section that came later: runs and versions of a line without it keep their digests."""
    without, null = (load_params(write(tmp_path, HEAD + text)) for text in ("", "semantic: null\n"))
    assert digest(without) == digest(null) and "semantic" not in without.model_dump()
    given = load_params(write(tmp_path, HEAD + f"semantic: {{{SEMANTIC}}}\ntrain_base: {{features: [semantic]}}\n"))
    assert digest(given) != digest(params(train_base={"features": ["token"]}))
    assert given.semantic is not None and given.semantic.size is None


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="does not exist; run 'samif init'"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"line: \x00"])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(SamifError, match="is not readable YAML"):
        load_params(path)


def test_parameters_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        params().line = "y"  # type: ignore[misc]


def test_digest_sees_values_and_order_of_models_not_of_keys() -> None:
    one, other = ProposeParams(points=7), EncoderParams()
    assert digest(one) == digest(ProposeParams(points=7))
    assert digest(one) != digest(ProposeParams(points=8))
    assert digest(one, other) != digest(other, one)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@given(st.lists(st.sets(st.integers(0, 50), min_size=1, max_size=5), max_size=6))
def test_a_chain_is_accepted_exactly_if_no_class_comes_twice(sessions: list[set[int]]) -> None:
    names = ["base", *(f"s{i}" for i in range(len(sessions)))]
    chain = {
        names[i + 1]: SessionParams(after=names[i], classes=[f"c{c}" for c in sorted(classes)]).model_dump()
        for i, classes in enumerate(sessions)
    }
    total = sum(len(classes) for classes in sessions)
    if len(set().union(*sessions)) == total:
        assert list(params(sessions=chain).sessions) == names[1:]
    else:
        with pytest.raises(ValueError, match="already in session"):
            params(sessions=chain)
