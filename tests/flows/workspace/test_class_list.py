"""Class names with commas, blanks and quotes in a list on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.workspace.class_list import class_names, resolved
from samif.errors import ConfigError

KNOWN = [
    "bolt",
    "screw, M4",
    "screw",
    "M4",
    "bolt, hex, zinc",
    "a=b",
    'pipe 3"',
    "big  nut",
    "ring,",
    ",dot",
    "x,y",
    "z",
    "p,q",
    "p, q",
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("bolt", ["bolt"]),
        (" bolt , z ", ["bolt", "z"]),
        ("bolt,,z,", ["bolt", "z"]),
        ("screw, M4", ["screw, M4"]),
        ("screw,M4", ["screw, M4"]),
        ("screw , M4,bolt", ["screw, M4", "bolt"]),
        ("bolt,screw, M4", ["bolt", "screw, M4"]),
        ("M4,screw", ["M4", "screw"]),
        ('"screw",M4', ["screw", "M4"]),
        ('screw,"M4"', ["screw", "M4"]),
        ('"screw","M4"', ["screw", "M4"]),
        ("bolt, hex, zinc", ["bolt, hex, zinc"]),
        ("bolt, hex", ["bolt", "hex"]),  # a class of the second name is not there, which the caller says
        ("bolt, hex, zinc, z", ["bolt, hex, zinc", "z"]),
        ("a=b,z", ["a=b", "z"]),
        ('pipe 3",bolt', ['pipe 3"', "bolt"]),
        ('"pipe 3"""', ['pipe 3"']),
        ("big nut,z", ["big  nut", "z"]),
        ('"big  nut"', ["big  nut"]),
        ("ring,", ["ring,"]),
        ("ring,,z", ["ring,", "z"]),
        (",dot,z", [",dot", "z"]),
        ("z,x,y", ["z", "x,y"]),
        ('"unknown, name",z', ["unknown, name", "z"]),
        ("p,q", ["p,q"]),
        ("p, q", ["p, q"]),
        ("", []),
        (" , ", []),
    ],
)
def test_the_longest_name_counts(text: str, names: list[str]) -> None:
    assert class_names(text, KNOWN) == names
    assert resolved(text, KNOWN) == names
    assert resolved(names, []) == names


@pytest.mark.parametrize("text", ['"bolt', 'z,"a,b', '"a"b,z'])
def test_a_quote_that_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a quote in the classes .* does not end before a comma"):
        class_names(text, KNOWN)


WORD = st.text(st.sampled_from('ab, "='), min_size=1, max_size=6).filter(lambda n: n.strip() == n and set(n) & {*"ab"})


@settings(max_examples=200, deadline=None)
@given(st.lists(WORD, min_size=1, max_size=4, unique_by=lambda name: name.replace(" ", "")))
def test_any_names_can_be_written_in_quotes(names: list[str]) -> None:
    text = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    if not any('"' in name for name in names):  # a name with quotes may look like several quoted ones
        assert class_names(text, names) == names
    assert class_names(names[0], names) == [names[0]]
