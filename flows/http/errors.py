"""What a client is told when there is no answer: a status, a word for programs, one sentence for people."""

from __future__ import annotations


class Refusal(Exception):
    """A request that gets no answer.

    Args:
        status: HTTP status, 4xx where the request is at fault.
        code: stable word for programs.
        sentence: what is wrong and what to do.
    """

    def __init__(self, status: int, code: str, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.headers = status, code, sentence, headers or {}

    @property
    def content(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.sentence}}


def busy(sentence: str) -> Refusal:
    return Refusal(503, "busy", sentence, {"Retry-After": "1"})
