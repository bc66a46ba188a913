"""Error answers of every HTTP service: a status, a code for programs, one sentence for people."""

from __future__ import annotations


class HttpError(Exception):
    """A request that cannot be answered.

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
        """Body of the answer."""
        return {"error": {"code": self.code, "message": self.sentence}}


def busy(sentence: str) -> HttpError:
    """503: the same request may succeed in a second."""
    return HttpError(503, "busy", sentence, {"Retry-After": "1"})
