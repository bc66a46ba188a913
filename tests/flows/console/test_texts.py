"""Texts of the page: both languages have the same keys with the same placeholders, and every used key is there."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import get_args, get_type_hints

from flows.registry.live_state import Term
from samif.config import WatchParams
from samif.versions.verdict import Check, Outcome

STATIC = files("flows") / "console" / "static"
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in (STATIC / "js").iterdir()}
PAGE = (STATIC / "index.html").read_text(encoding="utf-8")
TEXTS = {name: json.loads((STATIC / "i18n" / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "ja")}
FAMILIES = (
    "role",
    "section",
    "sets",
    "mode",
    "key",
    "does",
    "cause",
    "meaning",
    "verdict",
    "how",
    "check",
    "alarm",
    "review",
    "differs",
    "purpose",
    "import",
    "loss",
    "run",
    "versions",
)
"""First words of keys that are put together from a variable."""

STATISTICS = [name for name in WatchParams().statistics if name != "classes"]


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    english, japanese = TEXTS["en"], TEXTS["ja"]
    assert english.keys() == japanese.keys()
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", japanese[key])), key
        assert text.strip() and japanese[key].strip()


def test_every_used_key_has_a_text_and_every_text_is_used() -> None:
    code = "\n".join(SCRIPTS.values())
    used = set(re.findall(r'\bt\(\s*"([^"]+)"', code)) | set(re.findall(r'data-(?:t|label)="([^"]+)"', PAGE))
    used |= set(re.findall(r'"([a-z]+\.[A-Za-z]+)"', code))
    missing = {key for key in used if "." in key and key not in TEXTS["en"] and not key.endswith((".js", ".json"))}
    assert missing == set()
    unused = {key for key in TEXTS["en"] if key not in used and key.partition(".")[0] not in FAMILIES}
    assert unused == set()


def test_every_value_that_a_page_names_has_a_text() -> None:
    values = {
        "how": get_args(get_type_hints(Term)["how"]),
        "check": get_args(get_type_hints(Check)["outcome"]),
        "verdict": get_args(Outcome),
        "alarm": [*STATISTICS, "class", "replay", "low", "high"],
    }
    keys = [f"{family}.{value}" for family, names in values.items() for value in names]
    assert [key for key in keys if key not in TEXTS["en"]] == []


def test_nothing_is_parsed_as_markup_or_loaded_from_outside() -> None:
    for name, code in SCRIPTS.items():
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="):
            assert word not in code, (name, word)
        assert set(re.findall(r"https?://[^\s\"'`]+", code)) <= {"http://www.w3.org/2000/svg"}, name
    assert "http" not in PAGE and "<style" not in PAGE and not re.search(r"<script(?![^>]*src=)", PAGE)
