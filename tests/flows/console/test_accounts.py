"""Persons, roles and tokens from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.console.accounts import ROLES, read_accounts
from samif.errors import ConfigError

LONG = "0123456789abcdef"


def test_a_file_names_persons_with_roles(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    path.write_text(f"# staff\n\nviewer ann a{LONG}\n  operator bob b{LONG}\napprover 佐藤 c{LONG}\n")
    accounts = read_accounts(path)
    ann, bob, sato = (accounts.find(letter + LONG) for letter in "abc")
    assert ann and bob and sato
    assert [(a.name, a.role) for a in (ann, bob, sato)] == [
        ("ann", "viewer"),
        ("bob", "operator"),
        ("佐藤", "approver"),
    ]
    assert [role for role in ROLES if bob.may(role)] == ["viewer", "labeller", "operator"]
    assert accounts.find("d" + LONG) is None and accounts.find("") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names nobody"),
        ("operator bob", "is not ROLE NAME TOKEN"),
        (f"admin bob b{LONG}", "the role 'admin'"),
        ("operator bob short", "16 or more"),
        (f"viewer bob b{LONG}\noperator bob c{LONG}", "line 2"),
        (f"viewer ann b{LONG}\noperator bob b{LONG}", "line 2"),
        (f"viewer {'a' * 101} b{LONG}", "100 characters"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        read_accounts(path)
    assert LONG not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_accounts(tmp_path / "none")
