"""Addresses: those of params.yaml hold no credentials, and what is shown of any other one holds none either."""

from __future__ import annotations

import re

from pydantic import AfterValidator

_USER = re.compile(r"(?:(?<=http://)|(?<=https://))[^\s/?#]*@|(?<=://)[^\s/?#@:]*:(?!\d+(?:/|$))\S*@")
"""User and password. A user name alone is one of http's credentials, where it may be a token; of ssh it is none."""

_REST = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
_SIGNATURE = re.compile(r"(?i)://\S*[?&;][^=&;\s]*(?:sig|token|key|secret|passw|pwd|cred|auth|code)[^=&;\s]*=")


def has_credentials(address: str) -> bool:
    """Whether an address carries a user, a password, or a signature or token in its query."""
    return bool(_USER.search(address) or _SIGNATURE.search(address))


def shown(text: str) -> str:
    """The text, an address or one that quotes some, without what may be secret in them: user, password, query."""
    return _REST.sub(r"\1", _USER.sub("", text))


def secretless(instead: str) -> AfterValidator:
    """The type of a key of params.yaml that takes an address: `Annotated[str, secretless("set ...")]`.

    Args:
        instead: where its credentials belong, for the sentence of the refusal, which does not quote them.
    """

    def without_credentials(given: str) -> str:
        if has_credentials(given):
            raise ValueError(
                "expected an address without user name, password or signature, since params.yaml is kept with every "
                f"version; take them out and {instead}"
            )
        return given

    return AfterValidator(without_credentials)
