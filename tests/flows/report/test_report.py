"""The report stage and the page, on a small workspace as the other stages leave it."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from flows.report.charts import over_false_names
from flows.report.collect import collect
from flows.report.images import choose
from flows.report.page import duration, number, signed
from flows.report.publish import publish, session_table
from flows.workspace.image_roots import images_root
from flows.workspace.layout import Layout
from samif.config import Params
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.errors import SamifError
from samif.evaluate.matching import match_all
from tests.support.browser import look
from tests.support.report_workspace import PARTS, SIDE, annotate, build, rle, write_json


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


VERSIONS = {"decoder": 1, "classifiers": {"base": 1, "s1": 2, "s2": 7}}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Params]:
    layout, params = build(tmp_path_factory.mktemp("line"))
    collect(layout, params)
    publish(layout, VERSIONS)
    return layout, params


def _shape(value: Any) -> Any:
    """Keys and types, so that a contract can be compared as a whole."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    return [_shape(value[0])] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page_and_all_its_images(demo: tuple[Layout, Params], tmp_path: Path, width: int) -> None:
    page = demo[0].reports / "index.html"
    seen = look(page, width, tmp_path)
    assert (seen.overflow, seen.broken, seen.requests) == (0, 0, 0)
    assert seen.images == page.read_text().count("<img") > 0 and seen.height > 500


def test_summary_has_exactly_the_keys_and_types_of_the_contract(demo: tuple[Layout, Params]) -> None:
    summary = json.loads((demo[0].reports / "summary.json").read_bytes())
    scores = {"base": "float", "novel": "float", "all": "float"}
    entry = {
        "name": "str",
        "classes": ["str"],
        "shots": "int",
        "classifier": {"sha256": "str", "version": "int"},
        "ap": scores,
        "ap50": scores,
        "per_class": {name: {"ap": "float", "ap50": "float", "instances": "int"} for name in PARTS},
        "base_only": {"images": "int", "ap": "float", "ap50": "float"},
        "unknown": {"auroc": "NoneType", "unlabelled_false_positives_per_image": "NoneType"},
        "names": {"named": "float", "false_names": "float"},
        "seconds": "float",
    }
    assert _shape(summary["sessions"][-1]) == entry
    assert set(summary["base"]) == set(entry)
    assert _shape({key: value for key, value in summary.items() if key not in ("base", "sessions")}) == {
        "schema": "int",
        "dataset": {"digest": "str", "train_images": "int", "val_images": "int"},
        "encoder": {"name": "str", "digest": "str"},
        "decoder": {"sha256": "str", "version": "int"},
        "pretrain_classes": "str",
    }
    assert summary["dataset"]["train_images"] == 3
    assert summary["dataset"]["val_images"] == 12
    assert summary["decoder"]["sha256"] == hashlib.sha256(b"decoder").hexdigest()
    assert [entry["classifier"] for entry in summary["sessions"]] == [
        {"sha256": hashlib.sha256(b"s1").hexdigest(), "version": 2},
        {"sha256": hashlib.sha256(b"s2").hexdigest(), "version": 7},
    ]
    assert summary["base"]["shots"] is None
    assert summary["base"]["ap"]["novel"] is None


def test_the_stage_leaves_versions_null_and_gives_the_same_bytes_again(demo: tuple[Layout, Params]) -> None:
    layout, params = demo
    before = _tree(layout.report)
    summary = json.loads(before["summary.json"])
    assert summary["decoder"]["version"] is None
    assert {entry["classifier"]["version"] for entry in (summary["base"], *summary["sessions"])} == {None}
    (layout.report / "stale.txt").write_text("of an older run")
    collect(layout, params)
    assert _tree(layout.report) == before
    assert not [path for path in layout.artifacts.iterdir() if path.name.startswith(".")]


def test_an_evaluation_of_other_images_is_refused_and_the_old_report_stays(tmp_path: Path) -> None:
    layout, params = build(tmp_path, images=2)
    collect(layout, params)
    before = _tree(layout.report)
    path = layout.evaluation("s1") / "evaluation.json"
    path.write_text(path.read_text().replace('"dataset": "', '"dataset": "0'))
    with pytest.raises(SamifError, match="'s1' is of other validation images"):
        collect(layout, params)
    assert _tree(layout.report) == before


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    layout, params = build(tmp_path, images=1)
    (layout.drawn / "val" / "images" / "0000.png").unlink()
    with pytest.raises(SamifError, match=r"0000\.png"):
        collect(layout, params)
    assert not layout.report.exists()
    with pytest.raises(SamifError, match="summary.json"):
        publish(layout, VERSIONS)


def test_publishing_is_idempotent_and_fills_only_known_versions(tmp_path: Path) -> None:
    layout, params = build(tmp_path, images=3)
    collect(layout, params)
    page = publish(layout, VERSIONS)
    assert page == layout.reports / "index.html"
    first = _tree(layout.reports)
    assert set(first) == {"index.html", "summary.json"}
    publish(layout, VERSIONS)
    assert _tree(layout.reports) == first
    publish(layout, {"decoder": None, "classifiers": {"s2": 8}})
    summary = json.loads((layout.reports / "summary.json").read_bytes())
    assert [entry["classifier"]["version"] for entry in (summary["base"], *summary["sessions"])] == [None, None, 8]


def test_a_failed_publication_leaves_the_old_files_whole(tmp_path: Path) -> None:
    layout, params = build(tmp_path, images=3)
    collect(layout, params)
    publish(layout, VERSIONS)
    first = _tree(layout.reports)
    next((layout.report / "images" / "s1").iterdir()).unlink()
    with pytest.raises(SamifError, match="cannot read"):
        publish(layout, VERSIONS)
    assert _tree(layout.reports) == first


class _Page(HTMLParser):
    """Tags in balance, text, and every address that a browser would fetch."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_is_self_contained_and_says_what_matters(demo: tuple[Layout, Params]) -> None:
    html = (demo[0].reports / "index.html").read_text(encoding="utf-8")
    page = _Page(html)
    assert page.open == []
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "url(" not in html
    assert len(html) < 6_000_000
    for text in (
        "demo-line",
        "version v7",
        "Change of base AP",
        "Hits",
        "Misses",
        "False positives",
        "Silence on background",
        "hex bolt",
        hashlib.sha256(b"decoder").hexdigest(),
        "ignored while the base classifier",
        "10 labelled examples",
        "base classes only",
        "drawn validation scenes",
        "AP50 (points)",
        "training step",
        "mask IoU",
    ):
        assert text in page.text, text
    assert html.count("<svg") == 5
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_without_sessions_empty_groups_show_as_dashes(tmp_path: Path) -> None:
    layout, params = build(tmp_path, novel=(), images=2)
    collect(layout, params)
    html = publish(layout, {"decoder": None, "classifiers": {}}).read_text(encoding="utf-8")
    summary = json.loads((layout.reports / "summary.json").read_bytes())
    assert summary["sessions"] == []
    assert summary["base"]["ap"]["novel"] is None
    text = _Page(html).text
    assert "Novel classes – AP50 · AP –" in text
    assert "Change of base AP 0.0" in text
    assert "No session has added classes yet" in text
    assert "None" not in text


def test_a_line_without_detections_still_gets_a_page(tmp_path: Path) -> None:
    layout, params = build(tmp_path, images=2)
    for name in ("base", "s1", "s2"):
        write_json(layout.evaluation(name) / "detections.json", [])
    collect(layout, params)
    text = _Page(publish(layout, VERSIONS).read_text(encoding="utf-8")).text
    assert "Misses" in text
    assert "Hits" not in text.replace("Hits are the best images", "")


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 1e-17, 0.2), (1.0, 0.6, 1.0 - 1e-16), (0.5, 0.3, 0.7)])
def test_an_interval_whose_end_was_rounded_is_drawn(value: float, low: float, high: float) -> None:
    false = {"value": 0.0, "low": 0.0, "high": 12.0}
    rates = {"score": 0.5, "named": {"value": value, "low": low, "high": high}, "false_names": false}
    assert "<svg" in over_false_names({"rates": rates, "curve": [rates], "limit": 100.0})


def test_class_names_are_text_never_markup(tmp_path: Path) -> None:
    nasty = "<b>&\"'{{x}}"
    layout, params = build(tmp_path, classes=(nasty, "</style><script>alert(1)</script>", *PARTS[:4]), novel=(1,))
    collect(layout, params)
    html = publish(layout, VERSIONS).read_text(encoding="utf-8")
    page = _Page(html)
    assert page.open == []
    assert not page.tags & {"script", "b"}
    assert nasty in page.text
    assert nasty in json.loads((layout.reports / "summary.json").read_bytes())["base"]["per_class"]


@pytest.mark.parametrize(("classes", "heat"), [(30, True), (31, False), (80, False)])
def test_many_classes_list_their_confusions_instead_of_a_matrix(tmp_path: Path, classes: int, heat: bool) -> None:
    layout, params = build(tmp_path, classes=tuple(f"part {n}" for n in range(classes)), novel=(20,), images=20)
    collect(layout, params)
    html = publish(layout, VERSIONS).read_text(encoding="utf-8")
    assert ('class="heat"' in html) == heat
    assert ("The most frequent errors" in html) == (not heat)
    assert len(re.findall(r'<td class="barcell">', html)) == classes
    assert len(html) < 6_000_000


@pytest.mark.parametrize("name", ["s2", "a-session-with-a-name-as-long-as-sixty-three-characters-go-here"])
def test_the_session_table_fits_80_columns(demo: tuple[Layout, Params], name: str) -> None:
    summary = json.loads((demo[0].reports / "summary.json").read_bytes())
    last = summary["sessions"][-1]
    last |= {"name": name, "seconds": 3599.0, "shots": 10000, "classes": ["x"] * 1000}
    last["ap50"] = {"base": 100.0, "novel": None, "all": 100.0}
    last["unknown"]["unlabelled_false_positives_per_image"] = 12.345
    wide, narrow = (StringIO(), StringIO())
    Console(file=wide, width=200).print(session_table(summary))
    Console(file=narrow, width=80).print(session_table(summary))
    assert narrow.getvalue() == wide.getvalue()
    lines = narrow.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    cells = lines[-1].split()
    assert cells[0] == (name if len(name) <= 16 else name[:15] + "…")
    assert cells[1:] == [
        "v7",
        "1000",
        "10000",
        "100.0",
        "–",
        "100.0",
        f"{last['ap']['all']:.1f}",
        "12.35",
        "59",
        "min",
        "59",
        "s",
    ]


def test_a_session_name_is_no_markup_in_the_terminal(demo: tuple[Layout, Params]) -> None:
    summary = json.loads((demo[0].reports / "summary.json").read_bytes())
    summary["sessions"][-1]["name"] = "[red]x[/red]"
    out = StringIO()
    Console(file=out, width=80).print(session_table(summary))
    assert "[red]x[/red]" in out.getvalue()


def _square(left: int, width: int = 40) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[100:140, left : left + width] = True
    return mask


def _detect(category: int, mask: np.ndarray, score: float, image: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": rle(mask), "score": score}


def _scene(*annotations: Annotation, count: int = 1) -> Dataset:
    images = tuple(ImageRecord(n + 1, f"{n}.png", SIDE, SIDE, "", annotations) for n in range(count))
    return Dataset(Path("nowhere"), (Category(1, "nut"), Category(2, "bolt")), images)


@pytest.mark.parametrize(
    ("category", "width", "score", "names"),
    [
        (1, 40, 0.9, (["nut"], [], [])),
        (1, 20, 0.9, (["nut"], [], [])),  # IoU 0.5
        (1, 19, 0.9, ([], ["nut"], ["nut"])),  # IoU below 0.5
        (2, 40, 0.9, ([], ["nut"], ["bolt"])),
        (1, 40, 0.3, (["nut"], [], [])),  # at the operating score
        (1, 40, 0.29, ([], ["nut"], [])),
    ],
)
def test_matching_straddles_its_thresholds(
    category: int, width: int, score: float, names: tuple[list[str], list[str], list[str]]
) -> None:
    scene = _scene(annotate(1, "nut", _square(50)))
    (item,) = match_all(scene, [_detect(category, _square(50, width), score)], ["nut", "bolt"], 0.3)
    assert (item.names("hits"), item.names("misses"), item.names("false_positives")) == names


def test_a_second_tag_on_one_object_is_false_and_a_tag_in_a_crowd_is_not() -> None:
    scene = _scene(annotate(1, "nut", _square(50)), annotate(2, "bolt", _square(120, 80), crowd=True))
    tags = [_detect(1, _square(50), 0.8), _detect(1, _square(50), 0.9), _detect(2, _square(130, 10), 0.7)]
    (item,) = match_all(scene, tags, ["nut", "bolt"], 0.3)
    assert item.matched_gt == (0, None, None)
    assert item.false_positives == [False, True, False]
    assert item.missed == [False]


def test_objects_of_classes_not_yet_added_are_no_misses() -> None:
    scene = _scene(annotate(1, "nut", _square(50)), annotate(2, "bolt", _square(120)))
    (item,) = match_all(scene, [], ["nut"], 0.3)
    assert item.names("misses") == ["nut"]


def test_choice_prefers_the_new_classes_and_fresh_images() -> None:
    scene = _scene(annotate(1, "nut", _square(50)), annotate(2, "bolt", _square(120)), count=3)
    tags = [
        _detect(1, _square(50), 0.9, 1),  # misses the bolt
        _detect(2, _square(120), 0.9, 2),  # misses the nut
        _detect(1, _square(50), 0.9, 3),
        _detect(2, _square(120), 0.9, 3),
    ]
    chosen = choose(match_all(scene, tags, ["nut", "bolt"], 0.3), ["bolt"], 1)
    assert {kind: [item.image.id for item in items] for kind, items in chosen.items()} == {
        "hits": [3],
        "misses": [1],
        "false_positives": [],
    }


def test_images_root_follows_the_origin_of_the_split(tmp_path: Path) -> None:
    layout = Layout(tmp_path)

    def root(split: str, **dataset: Any) -> Path:
        params = Params.model_validate({"line": "x", "dataset": {"base_classes": ["a"], **dataset}})
        return images_root(layout, params, split)

    train = {"images": "images/train", "annotations": "t.json"}
    val = {"images": str(tmp_path / "elsewhere"), "annotations": "v.json"}
    assert root("val", drawn={}) == layout.drawn / "val" / "images"
    assert root("train", train=train, val=val) == tmp_path / "images/train"
    assert root("val", train=train, val=val) == tmp_path / "elsewhere"
    assert root("val", train=train) == tmp_path / "images/train"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (2.34, "2.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119.4, "119 s"),
        (119.6, "2 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_and_signs() -> None:
    assert [number(None), number(0.0), number(99.96)] == ["–", "0.0", "100.0"]
    assert [signed(None), signed(-0.04), signed(0.06), signed(-1.25, 2)] == ["–", "0.0", "+0.1", "−1.25"]
