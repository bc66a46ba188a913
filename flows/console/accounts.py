"""Who may use the console: names, roles and tokens from a file, or one person with a generated token."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from flows.http.auth import check_token, digest_of
from samif.errors import ConfigError

Role = Literal["viewer", "labeller", "operator", "approver"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""
MAX_NAME = 100


@dataclass(frozen=True)
class Account:
    """A person: name for the journals, role, and the digest of the token."""

    name: str
    role: Role
    token_sha256: str

    def may(self, role: Role) -> bool:
        """Whether the person's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Accounts:
    """The persons of a console."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._accounts = tuple(accounts)

    def find(self, token: str) -> Account | None:
        """The person with this token. The comparison takes the same time for every wrong token."""
        digest = digest_of(token)
        found = [account for account in self._accounts if hmac.compare_digest(account.token_sha256, digest)]
        return found[0] if found else None


def read_accounts(path: Path) -> Accounts:
    """Read a file with one person a line: ROLE NAME TOKEN. Empty lines and lines that begin with # do not count.

    Raises:
        ConfigError: the file cannot be read, a line has another form, or two persons share a name or token.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the accounts file {path} cannot be read ({error}); name another") from None
    accounts: dict[str, Account] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or line.lstrip().startswith("#"):
            continue
        account = _account(words, f"line {number} of {path}")
        if account.name in accounts or account.token_sha256 in {a.token_sha256 for a in accounts.values()}:
            raise ConfigError(f"line {number} of {path} repeats a name or a token; give each person one of their own")
        accounts[account.name] = account
    if not accounts:
        raise ConfigError(f"{path} names nobody; write one line per person: ROLE NAME TOKEN")
    return Accounts(tuple(accounts.values()))


def _account(words: Sequence[str], where: str) -> Account:
    if len(words) != 3:
        raise ConfigError(f"{where} is not ROLE NAME TOKEN, three words")
    role, name, token = words
    known = next((r for r in ROLES if r == role), None)
    if known is None:
        raise ConfigError(f"{where} has the role '{role}'; choose from {', '.join(ROLES)}")
    if len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"{where} has a name of more than {MAX_NAME} characters; write a shorter one")
    return Account(name, known, digest_of(check_token(token, where)))
