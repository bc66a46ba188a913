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
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from rich.console import Console

from flows.layout import Layout
from flows.report.collect import collect, pictures_root
from flows.report.page import duration, number, signed
from flows.report.pictures import choose, match_all
from flows.report.publish import publish, session_table
from samif.config import Params
from samif.dataset.model import Annotation, Category, Dataset, Picture
from samif.errors import SamifError
from samif.evaluate.model import Evaluation
from samif.overlay import class_colour

PARTS = (
    "hex bolt", "hex nut", "washer", "spring washer", "bearing", "bushing", "circlip", "dowel pin", "gear", "grub screw",
    "o-ring", "pulley", "rivet", "spacer", "t-nut", "wing nut", "cable gland", "standoff",
)  # fmt: skip
SIDE = 256


def build(
    root: Path, classes: tuple[str, ...] = PARTS, novel: tuple[int, ...] = (3, 2), pictures: int = 12, seed: int = 0
) -> tuple[Layout, Params]:
    """A workspace in which every stage before the report has run: drawn blobs, plausible numbers, no weights."""
    rng = np.random.default_rng(seed)
    layout = Layout(root)
    base = list(classes[: len(classes) - sum(novel)])
    sessions, after, start = {}, "base", len(base)
    for index, count in enumerate(novel, start=1):
        sessions[f"s{index}"] = {"after": after, "classes": list(classes[start : start + count]), "shots": 10}
        after, start = f"s{index}", start + count
    params = Params.model_validate(
        {"line": "demo-line", "dataset": {"drawn": {}, "base_classes": base}, "sessions": sessions}
    )
    val = _draw(layout.drawn / "val" / "images", classes, pictures, rng)
    val.save(layout.index("val"))
    _draw(layout.drawn / "train" / "images", classes, 3, rng).save(layout.index("train"))
    _json(layout.embeddings, {"encoder": hashlib.sha256(b"encoder").hexdigest()})
    layout.decoder.mkdir(parents=True)
    (layout.decoder / "decoder.safetensors").write_bytes(b"decoder")
    steps = range(0, 401, 10)
    curve = [{"step": s, "loss": 0.3 + 1.2 * np.exp(-s / 90) + rng.normal(0, 0.03), "mask_iou": 0.86 - 0.5 * np.exp(-s / 70)}
             for s in steps]  # fmt: skip
    after_tuning = {"iou_base": 0.861, "iou_other": 0.842, "background_silent": 0.978}
    quality = {"before": {"iou_base": 0.523, "iou_other": 0.531, "background_silent": 0.104}, "after": after_tuning}
    _json(layout.decoder / "training.json",
          {"schema": 1, "classes": "base", "steps": 400, "seconds": 263.2, "curve": curve, "quality": quality})  # fmt: skip
    for step, name in enumerate(("base", *sessions)):
        known = params.known_classes(name)
        folder = layout.classifier(name)
        folder.mkdir(parents=True)
        (folder / "classifier.safetensors").write_bytes(name.encode())
        _json(folder / "session.json", {"seconds": 41.7 if name == "base" else 2.3 + step})
        _evaluate(layout, val, name, base, known[len(base) :], rng)
    return layout, params


def _draw(folder: Path, classes: tuple[str, ...], count: int, rng: np.random.Generator) -> Dataset:
    folder.mkdir(parents=True)
    pictures = []
    for number_ in range(count):
        tone = int(rng.integers(60, 200))
        image = Image.fromarray(np.clip(rng.normal(tone, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8))
        annotations = []
        for slot in rng.permutation(9)[:6]:
            x, y = 46 + 82 * int(slot % 3), 46 + 82 * int(slot // 3)
            radius = int(rng.integers(14, 34))
            name = classes[int(rng.integers(len(classes)))]
            mask = Image.new("L", (SIDE, SIDE))
            sides = 3 + len(name) % 6
            ImageDraw.Draw(mask).regular_polygon((x, y, radius), sides, rotation=int(rng.integers(90)), fill=255)
            shade = tuple(int(0.5 * value + 60) for value in class_colour(name))
            image.paste(Image.new("RGB", image.size, shade), mask=mask)
            annotations.append(_annotation(100 * number_ + len(annotations), name, np.asarray(mask) > 0))
        path = folder / f"{number_:04d}.png"
        image.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        pictures.append(Picture(number_ + 1, path.name, SIDE, SIDE, digest, tuple(annotations)))
    return Dataset(folder, tuple(Category(i + 1, name) for i, name in enumerate(classes)), tuple(pictures))


def _rle(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def _annotation(identity: int, name: str, mask: np.ndarray, crowd: bool = False) -> Annotation:
    return Annotation(identity, name, _rle(mask), crowd, (0.0, 0.0, 1.0, 1.0), float(mask.sum()))


def _evaluate(
    layout: Layout, val: Dataset, name: str, base: list[str], novel: list[str], rng: np.random.Generator
) -> None:
    known = [*base, *novel]
    ids = {category.name: category.id for category in val.categories}
    labels = [*known, "background"]
    matrix = np.zeros((len(labels), len(labels)), int)
    detections = []
    for picture in val.pictures:
        for annotation in picture.annotations:
            seen = annotation.category in known
            luck = rng.random()
            if luck < (0.12 if seen else 0.8):
                matrix[labels.index(annotation.category) if seen else -1, -1] += seen
                continue
            said = annotation.category if seen and luck < 0.88 else known[int(rng.integers(len(known)))]
            matrix[labels.index(annotation.category) if seen else -1, labels.index(said)] += 1
            detections.append({"image_id": picture.id, "category_id": ids[said], "segmentation": annotation.rle,
                               "bbox": [0, 0, 1, 1], "score": float(rng.uniform(0.35, 0.99))})  # fmt: skip
    scores = {cls: float(rng.uniform(45, 90)) for cls in known}
    if known[0] in scores:
        scores[known[0]] = 3.0

    def mean(group: list[str]) -> float | None:
        return float(np.mean([scores[cls] for cls in group])) if group else None

    per_class = {
        cls: {"ap": scores[cls], "ap50": min(100.0, scores[cls] + 9), "instances": int(matrix[at].sum()),
              "group": "base" if cls in base else "novel"}
        for at, cls in enumerate(known)
    }  # fmt: skip
    ap = {"base": mean(base), "novel": mean(novel), "all": mean(known)}
    unknown = len(val.categories) - len(known)
    evaluation = Evaluation.model_validate({
        "schema": 1, "name": name, "classes": {"base": base, "novel": novel}, "pictures": len(val.pictures),
        "dataset": val.digest, "ap": ap, "ap50": {key: v and min(100.0, v + 9) for key, v in ap.items()},
        "per_class": per_class, "base_only": {"pictures": 5, "ap": 61.25, "ap50": 70.5},
        "unknown": {"auroc": 0.91 if unknown else None, "false_tags_per_image": 0.25 if unknown else None, "objects": unknown},
        "confusion": {"labels": labels, "matrix": matrix.tolist()}, "operating_score": 0.3, "seconds": 4.5,
    })  # fmt: skip
    evaluation.save(layout.evaluation(name) / "evaluation.json")
    _json(layout.evaluation(name) / "detections.json", detections)


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


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
        "per_class": dict.fromkeys(PARTS, {"ap": "float", "ap50": "float", "instances": "int"}),
        "base_only": {"pictures": "int", "ap": "float", "ap50": "float"},
        "unknown": {"auroc": "NoneType", "false_tags_per_image": "NoneType"},
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


def test_an_evaluation_of_other_pictures_is_refused_and_the_old_report_stays(tmp_path: Path) -> None:
    layout, params = build(tmp_path, pictures=2)
    collect(layout, params)
    before = _tree(layout.report)
    path = layout.evaluation("s1") / "evaluation.json"
    path.write_text(path.read_text().replace('"dataset": "', '"dataset": "0'))
    with pytest.raises(SamifError, match="'s1' is of other validation pictures"):
        collect(layout, params)
    assert _tree(layout.report) == before


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    layout, params = build(tmp_path, pictures=1)
    (layout.drawn / "val" / "images" / "0000.png").unlink()
    with pytest.raises(SamifError, match=r"0000\.png"):
        collect(layout, params)
    assert not layout.report.exists()
    with pytest.raises(SamifError, match="summary.json"):
        publish(layout, VERSIONS)


def test_publishing_is_idempotent_and_fills_only_known_versions(tmp_path: Path) -> None:
    layout, params = build(tmp_path, pictures=3)
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
    layout, params = build(tmp_path, pictures=3)
    collect(layout, params)
    publish(layout, VERSIONS)
    first = _tree(layout.reports)
    next((layout.report / "pictures").iterdir()).unlink()
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
    for text in ("demo-line", "version v7", "Change of base AP", "Hits", "Misses", "False tags", "before tuning",
                 "hex bolt", hashlib.sha256(b"decoder").hexdigest(), "ignored while the base classifier",
                 "10 labelled examples", "base classes only", "drawn validation scenes"):  # fmt: skip
        assert text in page.text, text
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_without_sessions_empty_groups_show_as_dashes(tmp_path: Path) -> None:
    layout, params = build(tmp_path, novel=(), pictures=2)
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
    layout, params = build(tmp_path, pictures=2)
    for name in ("base", "s1", "s2"):
        _json(layout.evaluation(name) / "detections.json", [])
    collect(layout, params)
    text = _Page(publish(layout, VERSIONS).read_text(encoding="utf-8")).text
    assert "Misses" in text
    assert "Hits" not in text.replace("Hits are the best pictures", "")


def test_class_names_are_text_never_markup(tmp_path: Path) -> None:
    nasty = '<b>&"\'{{x}}'
    layout, params = build(tmp_path, classes=(nasty, "</style><script>alert(1)</script>", *PARTS[:4]), novel=(1,))
    collect(layout, params)
    html = publish(layout, VERSIONS).read_text(encoding="utf-8")
    page = _Page(html)
    assert page.open == []
    assert not page.tags & {"script", "b"}
    assert nasty in page.text
    assert list(json.loads((layout.reports / "summary.json").read_bytes())["base"]["per_class"])[0] == nasty


@pytest.mark.parametrize(("classes", "heat"), [(30, True), (31, False), (80, False)])
def test_many_classes_list_their_confusions_instead_of_a_matrix(tmp_path: Path, classes: int, heat: bool) -> None:
    layout, params = build(tmp_path, classes=tuple(f"part {n}" for n in range(classes)), novel=(20,), pictures=20)
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
    last["unknown"]["false_tags_per_image"] = 12.345
    wide, narrow = (StringIO(), StringIO())
    Console(file=wide, width=200).print(session_table(summary))
    Console(file=narrow, width=80).print(session_table(summary))
    assert narrow.getvalue() == wide.getvalue()
    lines = narrow.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    cells = lines[-1].split()
    assert cells[0] == (name if len(name) <= 16 else name[:15] + "…")
    assert cells[1:] == ["v7", "1000", "10000", "100.0", "–", "100.0", f"{last['ap']['all']:.1f}", "12.35", "59", "min", "59", "s"]


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


def _detect(category: int, mask: np.ndarray, score: float, picture: int = 1) -> dict[str, Any]:
    return {"image_id": picture, "category_id": category, "segmentation": _rle(mask), "score": score}


def _scene(*annotations: Annotation, count: int = 1) -> Dataset:
    pictures = tuple(Picture(n + 1, f"{n}.png", SIDE, SIDE, "", annotations) for n in range(count))
    return Dataset(Path("nowhere"), (Category(1, "nut"), Category(2, "bolt")), pictures)


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
    scene = _scene(_annotation(1, "nut", _square(50)))
    (item,) = match_all(scene, [_detect(category, _square(50, width), score)], ["nut", "bolt"], 0.3)
    assert (item.names("hits"), item.names("misses"), item.names("false_tags")) == names


def test_a_second_tag_on_one_object_is_false_and_a_tag_in_a_crowd_is_not() -> None:
    scene = _scene(_annotation(1, "nut", _square(50)), _annotation(2, "bolt", _square(120, 80), crowd=True))
    tags = [_detect(1, _square(50), 0.8), _detect(1, _square(50), 0.9), _detect(2, _square(130, 10), 0.7)]
    (item,) = match_all(scene, tags, ["nut", "bolt"], 0.3)
    assert item.partner == (0, None, None)
    assert item.wrong == [False, True, False]
    assert item.missed == [False]


def test_objects_of_classes_not_yet_added_are_no_misses() -> None:
    scene = _scene(_annotation(1, "nut", _square(50)), _annotation(2, "bolt", _square(120)))
    (item,) = match_all(scene, [], ["nut"], 0.3)
    assert item.names("misses") == ["nut"]


def test_choice_prefers_the_new_classes_and_fresh_pictures() -> None:
    scene = _scene(_annotation(1, "nut", _square(50)), _annotation(2, "bolt", _square(120)), count=3)
    tags = [
        _detect(1, _square(50), 0.9, 1),  # misses the bolt
        _detect(2, _square(120), 0.9, 2),  # misses the nut
        _detect(1, _square(50), 0.9, 3),
        _detect(2, _square(120), 0.9, 3),
    ]
    chosen = choose(match_all(scene, tags, ["nut", "bolt"], 0.3), ["bolt"], 1)
    assert {kind: [item.picture.id for item in items] for kind, items in chosen.items()} == {
        "hits": [3],
        "misses": [1],
        "false_tags": [],
    }


def test_pictures_root_follows_the_origin_of_the_split(tmp_path: Path) -> None:
    layout = Layout(tmp_path)

    def root(split: str, **dataset: Any) -> Path:
        params = Params.model_validate({"line": "x", "dataset": {"base_classes": ["a"], **dataset}})
        return pictures_root(layout, params, split)

    train = {"images": "pictures/train", "annotations": "t.json"}
    val = {"images": str(tmp_path / "elsewhere"), "annotations": "v.json"}
    assert root("val", drawn={}) == layout.drawn / "val" / "images"
    assert root("train", train=train, val=val) == tmp_path / "pictures/train"
    assert root("val", train=train, val=val) == tmp_path / "elsewhere"
    assert root("val", train=train) == tmp_path / "pictures/train"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (2.34, "2.3 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (119.6, "2 min 00 s"),
     (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_and_signs() -> None:
    assert [number(None), number(0.0), number(99.96)] == ["–", "0.0", "100.0"]
    assert [signed(None), signed(-0.04), signed(0.06), signed(-1.25, 2)] == ["–", "0.0", "+0.1", "−1.25"]
