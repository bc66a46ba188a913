"""Addresses: which carry credentials, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from samif.config import load_params
from samif.errors import SamifError
from samif.io.address import has_credentials, shown

PASSWORD = "hunter2"
ADDRESSES = [
    (f"http://ann:{PASSWORD}@h:5000/x", "http://h:5000/x"),
    (f"http://ann:{PASSWORD}@{PASSWORD}@h", "http://h"),
    (f"http://ann:pa/{PASSWORD}@h/x", "http://h/x"),
    (f"https://{PASSWORD}@h/x", "https://h/x"),  # a token may stand where a user's name does
    (f"postgresql://ann:{PASSWORD}@h/db", "postgresql://h/db"),
    (f"s3://key:{PASSWORD}@bucket/x", "s3://bucket/x"),
    (f"ssh://ann:{PASSWORD}@h/x", "ssh://h/x"),
    (f"https://h/x?sig={PASSWORD}", "https://h/x"),
    (f"https://h/x?a=1&X-Amz-Signature={PASSWORD}#f", "https://h/x"),
]


@pytest.mark.parametrize(("address", "plain"), ADDRESSES)
def test_credentials_are_seen_and_not_shown(address: str, plain: str) -> None:
    assert has_credentials(address) and shown(address) == plain and not has_credentials(plain)
    assert shown(f"got {{'a': '{address}', 'b': 'http://i'}}; mend") == f"got {{'a': '{plain}', 'b': 'http://i'}}; mend"


@pytest.mark.parametrize(
    "address",
    [
        "http://h:5000", "https://h:8080/@org/w.pth", "s3://bucket/a:b@c", "ssh://git@h/x", "sqlite:////a/b.db",
        ".samif/embeddings", "/photos/a:b@c.pth", r"C:\photos", "http://[::1]:5000/x",
    ],
)  # fmt: skip
def test_what_holds_none_is_left_as_it_is(address: str) -> None:
    assert not has_credentials(address) and shown(address) == address


def test_a_query_that_is_no_secret_passes() -> None:
    assert not has_credentials("https://h/w.pth?download=true")


KEYS = {
    "registry: {tracking_uri: %s}": "key 'registry.tracking_uri': .*set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_P",
    "embed: {store: %s}": "key 'embed.store': .*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "embed: {address: %s}": "key 'embed.address': .*set RAY_AUTH_TOKEN",
    "encoder: {checkpoint: %s}": r"key 'encoder.checkpoint': .*for s3://, or write ~/\.netrc for https://",
    f"semantic: {{model: vit, sha256: {'0' * 64}, checkpoint: %s}}": r"key 'semantic.checkpoint': .*or write ~/\.netrc",
    "watch: {webhook: %s}": "key 'watch.webhook': .*SAMIF_WATCH_SECRET",
    # wrong in another way, which the sentence quotes
    "registry: {uri: %s}": "key 'registry.uri': expected no such key, got 'http://h:5000/x'",
    "registry: %s": "key 'registry': expected .*, got 'http://h:5000/x'",
    "registry: {tracking_uri: [%s}": "is not readable YAML",
}


@pytest.mark.parametrize("key", KEYS)
def test_no_key_of_params_takes_credentials_and_no_sentence_quotes_them(tmp_path: Path, key: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("line: x\ndataset: {drawn: {}, base_classes: [a, b]}\n" + key % ADDRESSES[0][0] + "\n")
    with pytest.raises(SamifError, match=KEYS[key]) as refusal:
        load_params(path)
    assert PASSWORD not in str(refusal.value) and "\n" not in str(refusal.value)
