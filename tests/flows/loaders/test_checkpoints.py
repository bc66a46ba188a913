"""Fetching weights over real connections on loopback, into a cache addressed by content."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from segment_anything import sam_model_registry

from flows.loaders.checkpoints import Checkpoint, Pulled, cache_folder, fetch, list_weights, pull, resolve, verify
from flows.loaders.inputs import semantic_of
from samif.config import SemanticParams
from samif.errors import SamifError
from samif.sam.zoo import ARCHITECTURES
from tests.support.semantic_checkpoints import SMALL, checkpoint
from tests.support.services import at_work

CONTENT = bytes(range(256)) * 10_000  # several chunks
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64


class Files(ThreadingHTTPServer):
    """Serves `files`; the first `failures` answers are 503, `cut` answers stop half way."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests = 0
        self.failures = 0
        self.cut = 0
        self.lock = threading.Lock()

    def uri(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests += 1
            fail, self.server.failures = self.server.failures > 0, max(0, self.server.failures - 1)
            cut, self.server.cut = self.server.cut > 0 and not fail, self.server.cut - (not fail)
        content = self.server.files.get(self.path.partition("?")[0].lstrip("/"))
        if fail or content is None:
            self.send_error(503 if fail else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Files]:
    server = Files()
    server.files["weights.pth"] = CONTENT
    with at_work(server):
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAMIF_WEIGHTS_URI", raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def hollow_vit_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vit_b checkpoint whose tensors share one number: a few kB."""
    with torch.device("meta"):
        state = sam_model_registry["vit_b"]().state_dict()
    path = tmp_path_factory.mktemp("vit_b") / "own.pth"
    torch.save({key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}, path)
    return path


def kept(cache: Path) -> list[str]:
    """Names in the cache besides locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") if cache.exists() else []


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# http


def test_http_file_lands_under_its_digest_once(server: Files, cache: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(server.uri("weights.pth"), DIGEST, lambda done, total: steps.append((done, total)))
    assert path == cache / f"{DIGEST}.pth"
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in steps] == sorted({done for done, _ in steps}) and len(steps) > 1
    assert fetch(server.uri("weights.pth"), DIGEST) == path
    assert server.requests == 1
    assert kept(cache) == [path.name]


def test_a_semantic_checkpoint_is_fetched_once_and_never_taken_for_another(
    server: Files, cache: Path, tmp_path: Path
) -> None:
    file = checkpoint(tmp_path / "small.safetensors")
    server.files["small.safetensors"] = file.read_bytes()
    there = SemanticParams(model=SMALL, checkpoint=server.uri("small.safetensors"), sha256=sha256(file), size=32)
    here = there.model_copy(update={"checkpoint": file.as_uri()})
    assert semantic_of(there).digest == semantic_of(here).digest == semantic_of(there).digest
    assert server.requests == 1 and kept(cache) == [f"{sha256(file)}.safetensors"]
    with pytest.raises(SamifError, match=f"is not the expected file: SHA-256 expected {OTHER}"):
        semantic_of(there.model_copy(update={"sha256": OTHER}))
    assert len(kept(cache)) == 1


def test_processes_that_ask_together_download_once(server: Files) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: fetch(server.uri("weights.pth"), DIGEST), range(4)))
    assert len(paths) == 1
    assert server.requests == 1


def test_changed_byte_is_refused_and_nothing_is_kept(server: Files, cache: Path) -> None:
    changed = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    server.files["weights.pth"] = changed
    with pytest.raises(SamifError, match=f"expected {DIGEST}, got {hashlib.sha256(changed).hexdigest()}"):
        fetch(server.uri("weights.pth"), DIGEST)
    assert kept(cache) == []


@pytest.mark.parametrize(("failures", "cut"), [(3, 0), (0, 3), (1, 2)])
def test_passing_trouble_is_outlasted(failures: int, cut: int, server: Files, cache: Path) -> None:
    server.failures, server.cut = failures, cut
    assert fetch(server.uri("weights.pth"), DIGEST).read_bytes() == CONTENT
    assert server.requests == 4
    assert kept(cache) == [f"{DIGEST}.pth"]


@pytest.mark.parametrize(("failures", "cut"), [(4, 0), (0, 4)])
def test_lasting_trouble_is_told(failures: int, cut: int, server: Files, cache: Path) -> None:
    server.failures, server.cut = failures, cut
    with pytest.raises(SamifError, match="gave up after 4 attempts"):
        fetch(server.uri("weights.pth"), DIGEST)
    assert kept(cache) == []


def test_missing_file_is_not_asked_for_again(server: Files) -> None:
    with pytest.raises(SamifError, match=r"absent\.pth: there is no such file"):
        fetch(server.uri("absent.pth"), DIGEST)
    assert server.requests == 1


def test_nobody_listening_is_told(server: Files) -> None:
    port = server.server_port
    server.server_close()
    with pytest.raises(SamifError, match="gave up after 4 attempts"):
        fetch(f"http://127.0.0.1:{port}/weights.pth", DIGEST)


def test_network_file_without_digest_is_refused_unasked(server: Files) -> None:
    with pytest.raises(SamifError, match="from the network need a SHA-256"):
        fetch(server.uri("weights.pth"), None)
    assert server.requests == 0


def test_secrets_in_an_address_are_not_repeated(server: Files) -> None:
    secret = server.uri("absent.pth").replace("http://", "http://user:hidden@") + "?signature=hidden"
    with pytest.raises(SamifError) as refusal:
        fetch(secret, DIGEST)
    assert "hidden" not in str(refusal.value)
    server.files["signed.pth"] = CONTENT
    assert fetch(server.uri("signed.pth") + "?signature=hidden", DIGEST).suffix == ".pth"


@pytest.mark.parametrize(
    ("uri", "digest", "message"),
    [
        ("ftp://host/weights.pth", DIGEST, "not ftp://"),
        ("http://127.0.0.1:1/weights.zip", DIGEST, "must end in .pth, .pt, .safetensors"),
        ("http://127.0.0.1:1/weights.pth", DIGEST.upper(), "is no SHA-256"),
        ("http://127.0.0.1:1/weights.pth", "../" + DIGEST[3:], "is no SHA-256"),
        ("http://[broken/weights.pth", DIGEST, "is no address"),
    ],
)
def test_wrong_addresses_and_digests(uri: str, digest: str, message: str) -> None:
    with pytest.raises(SamifError) as refusal:
        fetch(uri, digest)
    assert message in str(refusal.value)


def test_unwritable_cache_is_told(server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SAMIF_CACHE", str(tmp_path / "file"))
    with pytest.raises(SamifError, match=r"cannot copy weights to .*set SAMIF_CACHE"):
        fetch(server.uri("weights.pth"), DIGEST)


# local files


def test_local_file_is_used_where_it_lies(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "with space.pth"
    path.write_bytes(CONTENT)
    assert fetch(str(path), None) == fetch(path.as_uri(), DIGEST) == path
    assert not cache.exists()
    with pytest.raises(SamifError, match=f"expected {OTHER}, got {DIGEST}"):
        fetch(str(path), OTHER)
    with pytest.raises(SamifError, match="no such weights file"):
        fetch(str(tmp_path / "absent.pth"), None)


# pull, list, resolve, verify


def test_pull_then_resolve_by_digest(hollow_vit_b: Path, server: Files, cache: Path) -> None:
    server.files["own.pth"] = hollow_vit_b.read_bytes()
    digest = sha256(hollow_vit_b)
    pulled = pull("vit_b", server.uri("own.pth"), digest)
    assert pulled == Pulled("vit_b", cache / f"{digest}.pth", digest, published=False)
    assert resolve("vit_b", None, digest) == Checkpoint(pulled.path, digest)
    assert verify(str(pulled.path)).name == "vit_b"


def test_pull_of_a_local_file_needs_no_digest_and_reports_it(hollow_vit_b: Path, cache: Path) -> None:
    pulled = pull("vit_b", str(hollow_vit_b))
    assert (pulled.sha256, pulled.published) == (sha256(hollow_vit_b), False)
    assert pulled.path.read_bytes() == hollow_vit_b.read_bytes()
    with pytest.raises(SamifError, match="SHA-256 expected"):
        pull("vit_b", str(hollow_vit_b), OTHER)
    assert kept(cache) == [pulled.path.name]


def test_pull_without_digest_demands_the_published_one(hollow_vit_b: Path, server: Files, cache: Path) -> None:
    server.files["own.pth"] = hollow_vit_b.read_bytes()
    with pytest.raises(SamifError, match=f"expected {ARCHITECTURES['vit_b'].sha256}"):
        pull("vit_b", server.uri("own.pth"))
    assert kept(cache) == []


def test_pull_takes_published_name_under_prefix(
    hollow_vit_b: Path, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["mirror/sam_vit_b_01ec64.pth"] = hollow_vit_b.read_bytes()
    monkeypatch.setenv("SAMIF_WEIGHTS_URI", server.uri("mirror/"))
    assert pull("vit_b", sha256=sha256(hollow_vit_b)).sha256 == sha256(hollow_vit_b)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "sam_vit_b_01ec64.pth").write_bytes(hollow_vit_b.read_bytes())
    monkeypatch.setenv("SAMIF_WEIGHTS_URI", str(tmp_path / "mirror"))
    with pytest.raises(SamifError, match=f"expected {ARCHITECTURES['vit_b'].sha256}"):
        pull("vit_b")


def test_pull_of_another_architecture_is_refused(hollow_vit_b: Path, cache: Path) -> None:
    with pytest.raises(SamifError, match=r"holds weights of 'vit_b', but params.yaml says encoder\.name: vit_l"):
        pull("vit_l", str(hollow_vit_b))
    assert kept(cache) == []


def test_pull_without_address_and_of_tiny() -> None:
    with pytest.raises(SamifError, match=r"SAMIF_WEIGHTS_URI.*sam_vit_h_4b8939\.pth"):
        pull("vit_h")
    with pytest.raises(SamifError, match="'tiny' ship with samif"):
        pull("tiny")


def test_listing_follows_the_cache(cache: Path) -> None:
    rows = {row.name: row for row in list_weights()}
    assert {name: row.present for name, row in rows.items()} == {
        "tiny": True, "photo": True, "vit_b": False, "vit_l": False, "vit_h": False,
        "mobile_sam": False,
    }  # fmt: skip
    assert (rows["vit_b"].parameters, rows["vit_b"].embedding) == (93_735_472, (256, 64, 64))
    cache.mkdir(parents=True)
    (cache / f"{rows['vit_l'].sha256}.pth").write_bytes(b"")
    row = {row.name: row for row in list_weights()}["vit_l"]
    assert (row.present, row.path) == (True, cache / f"{row.sha256}.pth")


def test_resolve_of_every_kind(hollow_vit_b: Path, server: Files) -> None:
    assert resolve("tiny", None, None) == Checkpoint(None, None)
    assert resolve("vit_b", str(hollow_vit_b), None) == Checkpoint(hollow_vit_b, None)
    with pytest.raises(SamifError, match=r"run 'samif weights pull vit_b' or set encoder\.checkpoint"):
        resolve("vit_b", None, None)
    with pytest.raises(SamifError, match=f"expected {ARCHITECTURES['vit_b'].sha256}"):
        resolve("vit_b", server.uri("weights.pth"), None)
    assert resolve("vit_b", server.uri("weights.pth"), DIGEST) == Checkpoint(cache_folder() / f"{DIGEST}.pth", DIGEST)


def test_verify_notices_a_byte_changed_in_the_cache(hollow_vit_b: Path) -> None:
    pulled = pull("vit_b", str(hollow_vit_b))
    assert verify(str(pulled.path)).sha256 == pulled.sha256
    content = bytearray(pulled.path.read_bytes())
    content[-100] ^= 1
    pulled.path.write_bytes(content)
    for target, digest in ((str(pulled.path), None), ("vit_b", pulled.sha256)):
        with pytest.raises(SamifError, match=f"expected {pulled.sha256}, got"):
            verify(target, digest)


def test_mobile_sam_is_pulled_and_recognised(server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = ARCHITECTURES["mobile_sam"].layout
    floats = {name: torch.zeros(()).expand(shape) for name, shape in layout.items()}
    own = tmp_path / "mobile_sam.pt"
    torch.save({name: x.long() if "num_batches" in name else x for name, x in floats.items()}, own)
    server.files["mobile_sam.pt"] = own.read_bytes()
    monkeypatch.setenv("SAMIF_WEIGHTS_URI", server.uri(""))
    with pytest.raises(SamifError, match=f"expected {ARCHITECTURES['mobile_sam'].sha256}"):
        pull("mobile_sam")
    pulled = pull("mobile_sam", sha256=sha256(own))
    assert not pulled.published
    assert resolve("mobile_sam", None, pulled.sha256) == Checkpoint(pulled.path, pulled.sha256)
    assert verify(str(pulled.path)).name == verify("mobile_sam", pulled.sha256).name == "mobile_sam"
    with pytest.raises(SamifError, match=r"holds weights of 'mobile_sam', but params.yaml says encoder\.name: vit_b"):
        pull("vit_b", str(own))


def test_verify_of_weights_that_are_no_sam(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SamifError, match="holds no weights of tiny, photo, vit_b, vit_l, vit_h, mobile_sam"):
        verify(str(tmp_path / "other.pth"))


# S3


@pytest.fixture
def s3_object(bucket: str) -> str:
    """Address of a file in a real bucket."""
    import boto3

    boto3.session.Session().client("s3").put_object(Bucket=bucket, Key="some/weights.pth", Body=CONTENT)
    return f"s3://{bucket}/some/weights.pth"


def test_s3_file_lands_under_its_digest(s3_object: str, cache: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(s3_object, DIGEST, lambda done, total: steps.append((done, total)))
    assert path == cache / f"{DIGEST}.pth"
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_s3_refusals(s3_object: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SamifError, match=f"expected {OTHER}, got {DIGEST}"):
        fetch(s3_object, OTHER)
    with pytest.raises(SamifError, match="there is no such file"):
        fetch(s3_object.replace("weights.pth", "absent.pth"), DIGEST)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(
        SamifError,
        match="the server answers SignatureDoesNotMatch; correct the address, the endpoint or the credentials",
    ):
        fetch(s3_object, DIGEST)
    assert kept(cache) == []


def test_s3_server_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(variable, "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SamifError, match="gave up after 4 attempts"):
        fetch("s3://bucket/weights.pth", DIGEST)
    assert kept(cache) == []
