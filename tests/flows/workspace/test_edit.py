"""Making workspaces, adding and removing sessions, on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.workspace.dvc_yaml import render_pipeline
from flows.workspace.edit import add_session, remove_session, set_value
from flows.workspace.init import init_workspace
from flows.workspace.lock import exclusive
from flows.workspace.params_edit import new_text, with_session, with_value, without_session
from flows.workspace.shots import count_objects, read_labels
from samif.config import CocoSource, EncoderParams, Params, ReadRules, SessionParams, load_params
from samif.errors import SamifError

COUNTS = {"bolt": 12, "nut": 10, "gear": 9, "hook": 30}


def coco(folder: Path, counts: dict[str, int] | None = None) -> CocoSource:
    """A COCO file with so many objects per class (and one crowd of each, which is no object) beside its
    images. All of them are in the first one, so that the hold-out takes none: it takes the second. No image is opened,
    because the sizes are in the file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        (folder / "images" / f"{number}.png").write_text(str(number))
    names = list(counts or COUNTS)
    annotations = [
        {
            "id": 1000 * names.index(name) + number + 1,
            "image_id": 1,
            "category_id": names.index(name) + 1,
            "iscrowd": int(number < 0),
            "segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]],
            "bbox": [0, 0, 5, 5],
            "area": 25,
        }
        for name, count in (counts or COUNTS).items()
        for number in range(-1, count)
    ]
    file = folder / "annotations.json"
    file.write_text(
        json.dumps(
            {
                "images": [
                    {"id": i, "file_name": f"{i}.png", "width": 8, "height": 8, "sha256": "of an index"} for i in (1, 2)
                ],
                "categories": [{"id": i + 1, "name": n} for i, n in enumerate(names)],
                "annotations": annotations,
            }
        )
    )
    return CocoSource(images=str(folder / "images"), annotations=str(file))


def make(tmp_path: Path, *sessions: tuple[str, list[str]], shots: int = 10) -> Path:
    root = tmp_path / "Line 7"
    init_workspace(root, coco(tmp_path / "train"), None, sessions, shots=shots)
    return root


def content(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file() and ".samif" not in p.parts}


def test_init_freezes_the_base_and_chains_the_sessions(tmp_path: Path) -> None:
    root = make(tmp_path, ("s1", ["hook"]), ("s2", ["nut"]))
    params = load_params(root / "params.yaml")
    assert params.line == "line-7"
    assert params.dataset.base_classes == ["bolt", "gear"]
    assert params.dataset.drawn is None
    assert params.dataset.train is not None
    assert Path(params.dataset.train.images).is_absolute()
    assert [(n, s.after, s.classes) for n, s in params.sessions.items()] == [
        ("s1", "base", ["hook"]),
        ("s2", "s1", ["nut"]),
    ]
    assert (root / "dvc.yaml").read_text() == render_pipeline(params)
    assert "no_scm = True" in (root / ".dvc" / "config").read_text()
    assert sorted(p.name for p in root.iterdir()) == [".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"]


def test_template_agrees_with_the_defaults() -> None:
    text = new_text("x", ["a"], EncoderParams(), {}, CocoSource(images="/i", annotations="/a"))
    expected = Params(
        line="x", dataset={"train": {"images": "/i", "annotations": "/a"}, "base_classes": ["a"]}
    ).model_dump()  # type: ignore[arg-type]
    from ruamel.yaml import YAML

    written = YAML(typ="safe").load(text)
    # a dump leaves these out, so that older digests hold
    assert written.pop("semantic") is None and written["pretrain_decoder"].pop("workers") == 1
    assert written["dataset"].pop("labels_on") == "auto" and written["encoder"].pop("tiles") == 1
    assert [written[section].pop("multimask") for section in ("pretrain_decoder", "propose")] == [False, False]
    for section in ("drawn", "val", "protocol"):
        expected["dataset"].pop(section)
    assert written == expected


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    source = CocoSource(images="data/images", annotations="data/annotations.json")
    params = init_workspace(Path("ws"), source, source, [])
    for found in (params.dataset.train, params.dataset.val):
        assert found == CocoSource(
            images=str(tmp_path / "data/images"), annotations=str(tmp_path / "data/annotations.json")
        )


def test_a_git_root_keeps_its_files_and_gets_dvc_with_git(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / ".git").mkdir(parents=True)
    (root / ".gitignore").write_text("mine\n")
    init_workspace(root, coco(tmp_path / "train"), None, [])
    assert "no_scm" not in (root / ".dvc" / "config").read_text()
    assert (root / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("sessions", "shots", "sentence"),
    [
        ([("s1", ["cog"])], 5, "class 'cog' of session 's1' is not in .*it has bolt, nut, gear, hook"),
        ([("s1", ["nut"]), ("s2", ["nut"])], 5, "class 'nut' of session 's2' is already in session 's1'"),
        ([("s1", ["nut"]), ("s1", ["hook"])], 5, "session 's1' is given twice"),
        ([("s1", ["nut"])], 11, "class 'nut' of session 's1' has 10 objects in .*, fewer than 11 shots"),
        ([("s1", ["bolt", "nut", "gear", "hook"])], 5, "nothing is left for the base"),
        ([("s1", [])], 5, "session 's1' has no class"),
        ([("s/1", ["nut"])], 5, "s/1"),
        ([("base", ["nut"])], 5, "named 'base'"),
    ],
)
def test_init_refuses_and_leaves_nothing(
    tmp_path: Path, sessions: list[tuple[str, list[str]]], shots: int, sentence: str
) -> None:
    with pytest.raises(SamifError, match=sentence):
        make(tmp_path, *sessions, shots=shots)
    assert not (tmp_path / "Line 7").exists()


def test_init_accepts_exactly_enough_objects(tmp_path: Path) -> None:
    make(tmp_path, ("s1", ["nut"]), shots=10)


def test_init_refuses_a_workspace_and_wrong_files(tmp_path: Path) -> None:
    root = make(tmp_path, ("s1", ["nut"]))
    before = content(root)
    with pytest.raises(SamifError, match=r"already has a params\.yaml"):
        make(tmp_path)
    assert content(root) == before
    source = coco(tmp_path / "other")
    with pytest.raises(SamifError, match="is not a folder"):
        init_workspace(tmp_path / "new", CocoSource(images="/nowhere/at/all", annotations=source.annotations), None, [])
    Path(source.annotations).write_text("{")
    with pytest.raises(SamifError, match="is not JSON"):
        init_workspace(tmp_path / "new", source, None, [])
    Path(source.annotations).write_text('{"images": []}')
    with pytest.raises(SamifError, match="has no list 'annotations', a COCO file has"):
        init_workspace(tmp_path / "new", source, None, [])
    with pytest.raises(SamifError, match=r"the encoder 'vit_x' does not fit"):
        init_workspace(tmp_path / "new", coco(tmp_path / "other"), None, [], encoder="vit_x")
    assert not (tmp_path / "new").exists()


def test_count_objects_leaves_crowds_out_and_keeps_empty_classes(tmp_path: Path) -> None:
    source = coco(tmp_path, {"b": 2, "a": 0})
    assert list(count_objects(read_labels(source, ReadRules(crowds="ignore"))[0]).items()) == [("b", 2), ("a", 0)]


def test_classes_without_labels_are_no_base_classes_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco(tmp_path, {"fasteners": 0, "bolt": 12, "12": 11, "nut": 10})
    content = json.loads(Path(source.annotations).read_text())
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"]]
    content["categories"][2]["name"] = 12
    content["annotations"].append({**content["annotations"][0], "id": 9999, "segmentation": []})
    Path(source.annotations).write_text(json.dumps(content))
    params = init_workspace(tmp_path / "ws", source, source, [("s1", ["nut"])])
    assert params.dataset.base_classes == ["bolt", "12"]
    said = capsys.readouterr().err
    assert "train: annotations.json: class 'fasteners' has no instance; label some, or leave it so" in said
    assert "train: left out 1 label, the first is 1.png, image 1, annotation 9999: has no outline" in said
    assert "val: annotations.json: class 'fasteners' has no instance" in said


def test_init_tells_of_missing_images_and_leaves_them_to_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco(tmp_path)
    content = json.loads(Path(source.annotations).read_text())
    content["images"].append({"id": 3, "file_name": "3.png", "width": 8, "height": 8})
    Path(source.annotations).write_text(json.dumps(content))
    init_workspace(tmp_path / "ws", source, source, [])
    assert "train: left out 1 image, the first is 3.png, image 3: does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("background", "a class may not be named 'background'"), ("unknown", "a class may not be named 'unknown'")],
)
def test_init_refuses_reserved_names(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(SamifError, match=sentence):
        init_workspace(tmp_path / "ws", coco(tmp_path, {name: 3, "bolt": 3}), None, [])
    assert not (tmp_path / "ws").exists()


def test_add_and_remove_give_back_the_same_bytes(tmp_path: Path) -> None:
    root = make(tmp_path, ("s1", ["hook"]))
    before = (root / "params.yaml").read_bytes()
    # The base is frozen, so the class has to come into the data afterwards.
    coco(tmp_path / "train", COUNTS | {"clip": 7})
    params = add_session(root, "s2", ["clip"], shots=7, seed=3)
    assert params.sessions["s2"] == SessionParams(after="s1", classes=["clip"], shots=7, seed=3)
    assert params.dataset.base_classes == ["bolt", "nut", "gear"]
    assert load_params(root / "params.yaml") == params
    remove_session(root, "s2")
    assert (root / "params.yaml").read_bytes() == before


def test_removing_the_only_session_and_adding_it_again(tmp_path: Path) -> None:
    root = make(tmp_path, ("s1", ["hook"]))
    before = (root / "params.yaml").read_bytes()
    assert remove_session(root, "s1").sessions == {}
    assert b"sessions: {}                   # each after" in (root / "params.yaml").read_bytes()
    add_session(root, "s1", ["hook"])
    assert (root / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "classes", "shots", "sentence"),
    [
        ("s2", ["bolt"], 5, "class 'bolt' is a base class"),
        ("s2", ["hook"], 5, "class 'hook' of session 's2' is already in session 's1'"),
        ("s2", ["cog"], 5, "class 'cog' of session 's2' is not in"),
        ("s2", ["clip"], 8, "has 7 objects"),
        ("s1", ["clip"], 5, "already a session 's1'"),
        ("s2", ["clip"], 0, "shots is 0"),
        ("s 2", ["clip"], 5, "s 2"),
    ],
)
def test_add_refuses_and_leaves_the_file(
    tmp_path: Path, name: str, classes: list[str], shots: int, sentence: str
) -> None:
    root = make(tmp_path, ("s1", ["hook"]))
    coco(tmp_path / "train", COUNTS | {"clip": 7})
    before = content(root)
    with pytest.raises(SamifError, match=sentence) as refusal:
        add_session(root, name, classes, shots)
    assert ".params-" not in str(refusal.value)
    assert content(root) == before


def test_only_the_last_session_can_go(tmp_path: Path) -> None:
    root = make(tmp_path, ("s1", ["hook"]), ("s2", ["nut"]))
    with pytest.raises(SamifError, match="session 's1' cannot go: s2 stands on it; remove 's2' first"):
        remove_session(root, "s1")
    with pytest.raises(SamifError, match="there is no session 's3' in .*; it has s1, s2"):
        remove_session(root, "s3")


def test_edits_wait_for_no_run(tmp_path: Path) -> None:
    root = make(tmp_path, ("s1", ["hook"]))
    (root / ".samif").mkdir()
    with FileLock(root / ".samif" / "lock"), pytest.raises(SamifError, match="another samif command is at work"):
        remove_session(root, "s1")
    remove_session(root, "s1")
    with pytest.raises(SamifError, match="is not a workspace"), exclusive(tmp_path):
        pass


HAND_WRITTEN = """\
line: x
sessions:   # the weeks
    # the first week
    s1:
        after: base
        classes:
            - a   # a part
    # the second week,
    # with two parts
    s2: {after: s1, classes: [b,
            c]}   # on one line

# how good it is
evaluate: {}
"""


def test_hand_written_comments_survive() -> None:
    session = SessionParams(after="s2", classes=["d"])
    longer = with_session(HAND_WRITTEN, "s3", session)
    new = "    s3:\n      after: s2\n      classes: [d]\n      shots: 10\n      seed: 0\n"
    assert longer == HAND_WRITTEN.replace("# on one line\n", "# on one line\n" + new)
    assert without_session(longer, "s3") == HAND_WRITTEN
    assert without_session(HAND_WRITTEN, "s2") == HAND_WRITTEN.replace(
        "    # the second week,\n    # with two parts\n    s2: {after: s1, classes: [b,\n"
        "            c]}   # on one line\n",
        "",
    )


@pytest.mark.parametrize(
    "text",
    [
        "line: x",
        "line: x\nsessions: {}",
        "sessions: {}  # none\nline: x\n",
        "sessions: {a: {after: base, classes: [q]}}",
    ],
)
def test_every_way_to_write_sessions_takes_one_more(text: str) -> None:
    from ruamel.yaml import YAML

    before = YAML(typ="safe").load(text)
    after = YAML(typ="safe").load(with_session(text, "z", SessionParams(after="base", classes=["p"], shots=3)))
    assert after.pop("sessions").pop("z") == {"after": "base", "classes": ["p"], "shots": 3, "seed": 0}
    assert after.get("line") == before.get("line")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(WORDS | st.sampled_from(["null", "no", "1e3", "?a", "~", "- x", "a: b", "#1"]), min_size=1, unique=True)
)
def test_any_class_name_survives_the_file(classes: list[str]) -> None:
    from ruamel.yaml import YAML

    text = new_text("x", classes, EncoderParams(), {"s1": SessionParams(after="base", classes=classes)})
    read = YAML(typ="safe").load(text)
    assert read["dataset"]["base_classes"] == classes
    assert read["sessions"]["s1"]["classes"] == classes
    assert YAML(typ="safe").load(without_session(text, "s1"))["sessions"] == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "a: 1\nsection:\n  # c\n  key: 1.0  # why\n  other: 2\n",
            "a: 1\nsection:\n  # c\n  key: 25  # why\n  other: 2\n",
        ),
        ("section:\n    other: 2\nz: 1\n", "section:\n    key: 25\n    other: 2\nz: 1\n"),
        ("section: {key: null, other: 2} # c\n", "section: {key: 25, other: 2} # c\n"),
        ("section: {other: 2}\n", "section: {key: 25, other: 2}\n"),
        ("section: {}\n", "section: {key: 25}\n"),
        ("a: 1\n", "a: 1\n\nsection:\n  key: 25\n"),
    ],
)
def test_one_number_changes_and_every_other_byte_stays(before: str, after: str) -> None:
    assert with_value(before, "section", "key", 25.0) == after


def test_a_value_that_is_not_allowed_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(new_text("demo", ["bolt"], EncoderParams(), {}))
    before = (tmp_path / "params.yaml").read_bytes()
    with pytest.raises(SamifError, match="false_names"):
        set_value(tmp_path, "train_base", "false_names", -1.0)
    assert (tmp_path / "params.yaml").read_bytes() == before
    assert set_value(tmp_path, "train_base", "false_names", 0.5).train_base.false_names == 0.5
