"""Alarms to a webhook: one POST each, signed by the Standard Webhooks specification (`flows.http.signature`).

`webhook-id` is the id of the alarm: the same for every attempt to send it.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

import requests

from flows.http.signature import check_secret, signed_headers
from flows.runtime.retry import Transient, retry_times
from samif.errors import ConfigError, ServiceUnavailable

SECRET_VARIABLE = "SAMIF_WATCH_SECRET"
ATTEMPTS = 4
TIMEOUT_SECONDS = 10.0


class Webhook:
    """The receiver of alarms.

    Raises:
        ConfigError: the secret is not in the environment, or is no `whsec_` secret.
    """

    def __init__(self, url: str) -> None:
        text = os.environ.get(SECRET_VARIABLE, "")
        if not text:
            raise ConfigError(
                f"params.yaml names a webhook (watch.webhook), but {SECRET_VARIABLE} is not set; put the secret that "
                "signs alarms into the environment"
            )
        self._url, self._secret = url, check_secret(text, SECRET_VARIABLE)

    @property
    def host(self) -> str:
        """Host and port for messages; the rest of the address may be secret."""
        return urlsplit(self._url).netloc

    def send(self, identity: str, content: dict[str, Any]) -> None:
        """Send one alarm; retries with growing pauses where the host cannot be reached or answers 408, 429 or 5xx.

        Raises:
            ServiceUnavailable: the host did not accept it.
            ConfigError: the host refused it for good.
        """
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            retry_times(ATTEMPTS)(self._post, identity, body)
        except Transient as error:
            raise ServiceUnavailable(
                f"the webhook at {self.host} did not accept an alarm: {error}; the next poll sends it again"
            ) from None

    def _post(self, identity: str, body: bytes) -> None:
        headers = {"content-type": "application/json", "user-agent": "samif-watch"}
        headers |= signed_headers(self._secret, identity, body)
        try:
            answer = requests.post(
                self._url, data=body, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Transient(type(error).__name__) from None
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise Transient(f"it answered {answer.status_code}")
        if not 200 <= answer.status_code < 300:
            raise ConfigError(
                f"the webhook at {self.host} refused an alarm with {answer.status_code}; check watch.webhook and the "
                "secret on both sides"
            )
