"""The embedding store in a real bucket: trouble with the server, what is asked of it, and the cache on this side.

The one mock stands between us and the real server: a proxy that counts requests and can answer 503 or break off.
"""

from __future__ import annotations

import http.client
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from flows.store import EmbeddingReader, EmbeddingStore, open_store
from flows.store.bucket import Bucket
from flows.store.cache import Cache
from samif.errors import SamifError
from tests.support.services import Ceph, at_work
from tests.support.store_kit import (
    DAMAGES,
    ENCODER,
    PREPROCESSING,
    expect,
    manifest_of,
    names_of,
    namespace_of,
    reader_of,
    sha,
    write,
)

Trouble = Callable[[str, str], str | None]
"""Method and path of a request to what goes wrong: "busy", "breaks off" or None."""

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the S3 server, signatures and all."""

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(url).netloc
        self.trouble: Trouble = lambda method, path: None
        self.requests: list[tuple[str, str, int]] = []
        """Method, path, and bytes of the answer's body."""

    def count(self, method: str, ending: str) -> int:
        return sum(m == method and path.split("?")[0].endswith(ending) for m, path, _ in self.requests)

    def bytes(self, ending: str) -> int:
        return sum(count for m, path, count in self.requests if m == "GET" and path.split("?")[0].endswith(ending))


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        trouble = self.server.trouble(self.command, self.path)
        if trouble == "busy":
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        upstream.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        self.server.requests.append((self.command, self.path, len(content)))
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection")
        }
        if self.command != "HEAD":
            kept["Content-Length"] = str(len(content))
        self._answer(answer.status, kept, content[: len(content) // 2] if trouble == "breaks off" else content)
        self.close_connection = trouble == "breaks off"

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(s3_server: Ceph, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    server = Proxy(s3_server.url)
    with at_work(server):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


@pytest.fixture
def store(bucket: str, tmp_path: Path) -> EmbeddingStore:
    """Through the proxy in tests that ask for that."""
    return open_store(f"s3://{bucket}/a/store", tmp_path)


# the server


@pytest.mark.parametrize("trouble", ["busy", "breaks off"])
def test_passing_trouble_is_outlasted(store: EmbeddingStore, proxy: Proxy, trouble: str) -> None:
    seen: set[str] = set()

    def first(method: str, path: str) -> str | None:
        """The first put and the first get of data and of a manifest."""
        kind = method + path.split("?")[0].rpartition(".")[2]
        if kind in seen or (trouble == "breaks off" and method == "PUT"):
            return None
        seen.add(kind)
        return trouble

    write(store, [sha(9)])
    proxy.trouble = first
    write(store, [sha(0), sha(1)])
    expect(store, [sha(0), sha(1)])
    assert {"GETjson", "GETsafetensors"} <= seen
    assert namespace_of(store).verify() == []


@pytest.mark.parametrize("ending", ["", ".json", ".safetensors"])
def test_a_bucket_that_stays_busy_is_told_once_and_resumed(
    store: EmbeddingStore, proxy: Proxy, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every request, at those for manifests, and at those for data."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    first = write(store, [sha(0), sha(1)])
    proxy.trouble = lambda method, path: "busy" if path.endswith(ending) and method == "PUT" else None
    with pytest.raises(SamifError) as caught:
        write(store, [sha(2)])
    sentence = str(caught.value)
    assert sentence.startswith(f"the embedding store {store.location} does not answer, 2 attempts were made")
    assert "SlowDown" in sentence and "run 'samif run' again" in sentence and "\n" not in sentence
    proxy.trouble = lambda method, path: None
    assert namespace_of(store).holds(first)
    assert namespace_of(store).missing([sha(0), sha(1), sha(2)]) == [sha(2)]
    write(store, [sha(2)])
    assert namespace_of(store).verify() == []
    expect(store, [sha(0), sha(1), sha(2)])


def test_reading_from_a_busy_bucket_discards_nothing(
    store: EmbeddingStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    write(store, [sha(0)])
    reader = reader_of(store, [sha(0)])
    proxy.trouble = lambda method, path: "busy"
    for action in (lambda: reader.read([sha(0)]), lambda: namespace_of(store).missing([sha(0)])):
        with pytest.raises(SamifError, match="2 attempts were made.*SlowDown"):
            action()
    proxy.trouble = lambda method, path: None
    expect(store, [sha(0)])


def test_a_server_that_is_down_is_told(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SamifError, match=r"2 attempts were made \(EndpointConnectionError\)"):
        write(open_store(f"s3://{bucket}", tmp_path), [sha(0)])


def test_killed_daemons_are_outlasted(s3_server: Ceph, bucket: str, tmp_path: Path) -> None:
    """The gateway is killed and started again while eight writers write."""
    store = open_store(f"s3://{bucket}", tmp_path)
    images = [sha(index) for index in range(48)]
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, store, [image]) for image in images]
        s3_server.kill("rgw")
        s3_server.start("rgw")
        s3_server.wait()
        for shard in writing:
            shard.result()
    assert namespace_of(store).missing(images) == []
    assert namespace_of(store).verify() == []


@pytest.mark.parametrize(
    ("location", "variable", "words"),
    [
        ("s3://no-such-bucket-here/x", None, "NoSuchBucket.*embed.store"),
        ("s3://BUCKET/x", ("AWS_SECRET_ACCESS_KEY", "wrong"), "SignatureDoesNotMatch.*credentials"),
        ("s3://BUCKET/x", ("AWS_ACCESS_KEY_ID", "nobody"), "InvalidAccessKeyId.*credentials"),
        ("s3://BUCKET/x", ("AWS_ENDPOINT_URL", "nonsense"), "nonsense.*AWS_ENDPOINT_URL"),
        ("s3:///x", None, "give a folder or s3://bucket/prefix"),
        ("https://host/x", None, "give a folder or s3://bucket/prefix"),
        ("ftp://host/x", None, "ftp"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
    variable: tuple[str, str] | None,
    words: str,
) -> None:
    if variable:
        monkeypatch.setenv(*variable)
    with pytest.raises(SamifError, match=words) as caught:
        namespace_of(open_store(location.replace("BUCKET", bucket), tmp_path)).missing([sha(0)])
    assert "\n" not in str(caught.value)


def test_one_of_eight_creates(store: EmbeddingStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda writer: store.storage.create("x/y.json", b"%d" % writer), range(8)))
    assert sum(created) == 1
    assert store.storage.read("x/y.json") == b"%d" % created.index(True)


def test_listings_do_not_end_with_the_first_answer(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.store.bucket._KEYS", 7)
    names = [f"{'a' * 16}/{5 * index:02x}/{index:04}.json" for index in range(50)]
    names += [f"{'a' * 16}/index-0.safetensors", f"{'a' * 16}/namespace.json"]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.storage.write(name, [b"x"]), names))
    store.storage.write(f"{'b' * 16}/namespace.json", [b"y"])
    entries = store.storage.entries("a" * 16)
    assert sorted(entry.name for entry in entries) == sorted(names)
    assert {entry.bytes for entry in entries} == {1}
    assert all(-2.0 < entry.age < 600.0 for entry in entries)
    assert store.storage.folders() == ["a" * 16, "b" * 16]
    store.storage.delete(entry.name for entry in entries)
    assert store.storage.folders() == ["b" * 16]


# what is asked of it


WIDE = (8, 64, 64)
ROW = 2 * 8 * 64 * 64


@pytest.fixture
def small_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that four rows of these tests are as far apart as four of a real encoder."""
    monkeypatch.setattr("flows.store.bucket._GAP", 4 * ROW)


def wide(count: int) -> tuple[list[str], torch.Tensor]:
    """Images with embeddings of 64 KiB as float16."""
    images = [sha(index) for index in range(count)]
    values = torch.stack([torch.full(WIDE, float(index + 1)) for index in range(count)])
    return images, values


def wide_reader(store: EmbeddingStore, images: list[str]) -> EmbeddingReader:
    return EmbeddingReader(store, manifest_of(images).model_copy(update={"shape": WIDE}))


@pytest.mark.usefixtures("small_gap")
def test_a_shard_is_fetched_once_and_a_row_alone(store: EmbeddingStore, proxy: Proxy) -> None:
    images, values = wide(16)
    namespace_of(store).write(images, values)
    size = ROW
    proxy.requests.clear()
    reader = wide_reader(store, images)
    assert torch.equal(reader.read([images[9]])[0], values[9])
    assert (proxy.count("GET", ".safetensors"), proxy.bytes(".safetensors")) == (1, size)
    assert torch.equal(reader.read([images[9], images[9]]), values[[9, 9]])
    assert proxy.bytes(".safetensors") == size
    far = [images[index] for index in (0, 15)]  # further apart than a request is worth
    assert torch.equal(reader.read(far), values[[0, 15]])
    assert (proxy.count("GET", ".safetensors"), proxy.bytes(".safetensors")) == (3, 3 * size)
    assert torch.equal(reader.read(images), values)
    assert (proxy.count("GET", ".safetensors"), proxy.bytes(".safetensors")) == (4, 17 * size)  # one is read along
    proxy.requests.clear()
    assert torch.equal(wide_reader(store, images).read(images), values)  # all of it is in the cache
    assert proxy.count("GET", ".safetensors") == 0


@pytest.mark.usefixtures("small_gap")
def test_near_rows_come_in_one_request(store: EmbeddingStore, proxy: Proxy) -> None:
    images, values = wide(16)
    namespace_of(store).write(images, values)
    proxy.requests.clear()
    order = [5, 1, 3, 6]
    assert torch.equal(wide_reader(store, images).read([images[i] for i in order]), values[order])
    assert (proxy.count("GET", ".safetensors"), proxy.bytes(".safetensors")) == (1, 6 * ROW)


@pytest.mark.usefixtures("small_gap")
def test_eight_bit_rows_come_with_their_scales(store: EmbeddingStore, proxy: Proxy) -> None:
    images, values = wide(8)
    store.namespace(ENCODER.digest, PREPROCESSING, "int8").write(images, values)
    manifest = manifest_of(images, "int8").model_copy(update={"shape": WIDE})
    proxy.requests.clear()
    got = EmbeddingReader(store, manifest).read([images[7]])
    assert torch.allclose(got[0], values[7], rtol=4e-3)
    assert (proxy.count("GET", ".safetensors"), proxy.bytes(".safetensors")) == (1, ROW // 2 + 4 * WIDE[0])


# the cache


@pytest.mark.parametrize("spoil", [b"\xff", None], ids=["changed", "gone"])
def test_a_spoilt_cache_is_fetched_again(store: EmbeddingStore, cache_folder: Path, spoil: bytes) -> None:
    write(store, [sha(0), sha(1)])
    expect(store, [sha(0), sha(1)])
    (cached,) = cache_folder.iterdir()
    if spoil:
        content = bytearray(cached.read_bytes())
        content[-3:-2] = spoil
        cached.write_bytes(content)
    else:
        cached.unlink()
    expect(store, [sha(0), sha(1)])
    assert namespace_of(store).verify() == []


def test_the_cache_does_not_hide_damage_from_verify(store: EmbeddingStore) -> None:
    shard = write(store, [sha(0), sha(1)])
    expect(store, [sha(0), sha(1)])
    DAMAGES["flipped bit"](store.storage, *names_of(store, shard))
    (damage,) = namespace_of(store).verify()
    assert damage.shard == shard


def test_the_cache_stays_within_its_limit(store: EmbeddingStore, bucket: str, tmp_path: Path) -> None:
    images, values = wide(12)
    for index, image in enumerate(images):
        namespace_of(store).write([image], values[index : index + 1])
    limit = 6 * ROW
    small = EmbeddingStore(Bucket(bucket, "a/store", Cache(tmp_path / "small", limit)))
    reader = wide_reader(small, images)
    used = []
    for index, image in enumerate(images):
        assert torch.equal(reader.read([image])[0], values[index])
        used.append(sum(path.stat().st_blocks * 512 for path in (tmp_path / "small").iterdir()))
    assert max(used) <= limit + limit // 16 + ROW
    assert used[-1] >= limit // 2
    kept = {path.name for path in (tmp_path / "small").iterdir()}
    last = namespace_of(store).shard_name([images[-1]])
    first = namespace_of(store).shard_name([images[0]])
    assert any(last in name for name in kept) and not any(first in name for name in kept)


def test_several_readers_share_a_cache_that_is_too_small(store: EmbeddingStore, bucket: str, tmp_path: Path) -> None:
    images, values = wide(8)
    for start in range(0, 8, 2):
        namespace_of(store).write(images[start : start + 2], values[start : start + 2])
    small = EmbeddingStore(Bucket(bucket, "a/store", Cache(tmp_path / "small", 3 * ROW)))

    def read(reader: int) -> bool:
        mine = wide_reader(pickle.loads(pickle.dumps(small)), images)  # noqa: S301  (our own bytes)
        order = torch.randperm(24, generator=torch.Generator().manual_seed(reader)) % 8
        return all(torch.equal(mine.read([images[i]])[0], values[i]) for i in order.tolist())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


def test_a_cache_that_cannot_be_written_is_told(store: EmbeddingStore, cache_folder: Path) -> None:
    write(store, [sha(0)])
    cache_folder.parent.mkdir(parents=True)
    cache_folder.write_text("not a folder")
    with pytest.raises(SamifError, match=r"cannot be cached in .*embed\.cache_gib.*SAMIF_CACHE"):
        reader_of(store, [sha(0)]).read([sha(0)])
