"""Parts of `samif watch`: the history and crashes, signed alarms, and the differences that a replay finds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import flows.watch.webhook as webhook_module
from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.proposal_file import ProposalFile, write_proposals
from flows.comparison.scorer import Scorer
from flows.loaders.inputs import dataset_of, store_of
from flows.watch.history import History, State
from flows.watch.records import RECORD, Alarm, Cleared, FileIdentity, ImageObserved, Notified
from flows.watch.replay import _encode_again, replay
from flows.watch.stream import new_files
from flows.watch.watcher import Watcher, watch_folder
from flows.watch.webhook import SECRET_VARIABLE, Webhook
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.errors import SamifError, ServiceUnavailable
from samif.evaluate.model import Evaluation
from samif.versions.gates import SAME_POINTS
from tests.support.services import at_work
from tests.support.tagged_line import ROWS, TaggedLine
from tests.support.watched_line import WatchedLine

NOW = datetime(2026, 3, 1, tzinfo=UTC)

KEY = bytes(range(24))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def observed(number: int, reference: str = "r") -> ImageObserved:
    file = FileIdentity(name=f"{number}.png", size=number, modified=number)
    return ImageObserved(
        time=NOW, reference=reference, file=file, values={"unknown": 0.25}, embedding=(0.5, -1.0), uncertainty=(0.0,)
    )


def alarm(name: str = "a", subject: str = "unknown") -> Alarm:
    return Alarm(
        time=NOW, id=name, source="stream", model="demo-classifier/1", reference="r", subject=subject, side="high",
        level=0.3, limit=0.2, images=7, sentence="0.30 objects per image have no known class",
    )  # fmt: skip


# History


@given(st.integers(0, 400), st.integers(1, 4))
def test_complete_lines_survive_a_crash_anywhere_and_new_ones_follow(cut: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        history.append([observed(number) for number in range(count)])
        content = history.path.read_bytes()
        kept = content[: min(cut, len(content))]
        history.path.write_bytes(kept)
        whole = kept.count(b"\n")
        assert [r.file.size for r in history.read() if isinstance(r, ImageObserved)] == list(range(whole))
        with history.writing():
            history.append([observed(99)])
        assert [r.file.size for r in history.read() if isinstance(r, ImageObserved)] == [*range(whole), 99]


def test_a_long_partial_line_is_removed(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append([observed(1)])
    with history.path.open("ab") as file:
        file.write(b"x" * 200_000)
    with history.writing():
        history.append([observed(2)])
    assert len(list(history.read())) == 2


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append([observed(1), observed(2), observed(3)])
    lines = history.path.read_bytes().splitlines(keepends=True)
    history.path.write_bytes(lines[0] + b'{"kind": "image"}\n' + lines[2])
    with pytest.raises(SamifError, match=r"line 2 of .* is damaged"):
        history.state(50)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    history = History(tmp_path)
    records = [observed(1), alarm(), Notified(time=NOW, alarm="a"), Cleared(time=NOW, alarm="a", sentence="as usual")]
    history.append(records)
    assert list(history.read()) == records
    assert all(RECORD.validate_json(record.model_dump_json()) == record for record in records)


def test_the_state_follows_from_the_lines() -> None:
    state = State(window=1)
    for record in (*(observed(n) for n in range(30)), alarm("a"), alarm("b", "objects"), Notified(time=NOW, alarm="a")):
        state.add(record)
    assert state.images == 30 and [p.file.size for p in state.recent] == list(range(10, 30))
    assert {a.id for a in state.active.values()} == {"a", "b"} and state.notified == {"a"}
    state.add(Cleared(time=NOW, alarm="a", sentence=""))
    state.add(observed(31, reference="another"))
    assert {a.id for a in state.active.values()} == {"b"}
    assert state.images == 1 and len(state.recent) == 1 and len(state.files) == 31


# Stream


def test_images_come_oldest_first_from_folders_below_too(tmp_path: Path) -> None:
    for age, name in enumerate(("b.png", "day/a.JPG", "a.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, ns=(age, age))
    for name in (".coming.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = new_files(tmp_path, set())
    assert [file.name for file in found] == ["b.png", "day/a.JPG", "a.png"]
    assert [file.name for file in new_files(tmp_path, set(found[:2]))] == ["a.png"]


# Webhook


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; answers with `codes` one after the other, then 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.codes: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/alarms/key-of-its-own"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.codes.pop(0) if self.server.codes else 204)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    server = Receiver()
    with at_work(server):
        yield server


def test_an_alarm_is_signed_as_the_specification_says(receiver: Receiver) -> None:
    Webhook(receiver.url).send("alarm_1", {"type": "samif.watch.alarm", "größe": 1})
    ((headers, body),) = receiver.got
    signed = f"alarm_1.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}" and headers["webhook-id"] == "alarm_1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60 and json.loads(body)["größe"] == 1


def test_temporary_failures_are_retried_under_one_id(receiver: Receiver) -> None:
    receiver.codes = [503, 429]
    Webhook(receiver.url).send("alarm_1", {})
    assert [headers["webhook-id"] for headers, _ in receiver.got] == ["alarm_1"] * 3


@pytest.mark.parametrize(
    ("codes", "asked", "words"),
    [
        ([500] * 9, webhook_module.ATTEMPTS, "did not accept"),
        ([401], 1, "refused an alarm with 401"),
        ([302], 1, "302"),
    ],
)
def test_a_permanent_failure_is_one_sentence_without_the_address(
    receiver: Receiver, codes: list[int], asked: int, words: str
) -> None:
    receiver.codes = codes
    with pytest.raises(SamifError, match=words) as refusal:
        Webhook(receiver.url).send("alarm_1", {})
    assert len(receiver.got) == asked
    assert "key-of-its-own" not in str(refusal.value) and SECRET not in str(refusal.value)


def test_an_unreachable_receiver_is_named(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_module, "ATTEMPTS", 1)
    with pytest.raises(SamifError, match="did not accept an alarm: ConnectionError"):
        Webhook("http://127.0.0.1:9/x").send("alarm_1", {})


@pytest.mark.parametrize(("secret", "words"), [(None, "is not set"), ("whsec_%%%", "holds no webhook secret")])
def test_a_secret_that_cannot_sign_is_refused(monkeypatch: pytest.MonkeyPatch, secret: str | None, words: str) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    if secret is not None:
        monkeypatch.setenv(SECRET_VARIABLE, secret)
    with pytest.raises(SamifError, match=words) as refusal:
        Webhook("http://127.0.0.1:9/x")
    assert "%%%" not in str(refusal.value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> WatchedLine:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    line = WatchedLine(tmp_path_factory.mktemp("watched") / "line", migrated)
    torch.set_num_threads(before)
    return line


def test_an_alarm_that_the_webhook_did_not_accept_is_sent_at_the_next_poll(
    made: WatchedLine, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This line's registered scores are made up, so its replay raises an alarm."""
    line = made.copy(tmp_path / "line")
    line.set_watch(webhook=receiver.url)
    monkeypatch.setattr(webhook_module, "ATTEMPTS", 1)
    receiver.codes = [503]

    def poll() -> None:
        watcher = Watcher(line.layout, line.params, line.registry, "demo@champion", None)
        with watcher.history.writing():
            watcher.poll()

    with pytest.raises(SamifError, match="did not accept"):
        poll()
    poll()
    poll()
    bodies = [json.loads(body) for _, body in receiver.got]
    assert len(bodies) == 2 and bodies[0] == bodies[1]
    assert bodies[0]["type"] == "samif.watch.alarm" and bodies[0]["data"]["subject"] == "replay"
    assert bodies[0]["data"]["line"] == "demo" and bodies[0]["data"]["recommendations"][0]["action"] == "re-evaluation"
    for path in watch_folder(line.layout).rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


# Replay


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> TaggedLine:
    line = TaggedLine(tmp_path_factory.mktemp("tagged") / "line", migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    return line


def _lighten(layout: Layout) -> None:
    path = next((layout.drawn / "val" / "images").iterdir())
    Image.fromarray(np.full((64, 64, 3), 7, np.uint8)).save(path)


def _lose(layout: Layout) -> None:
    next((layout.drawn / "val" / "images").iterdir()).unlink()


def _propose_otherwise(layout: Layout) -> None:
    """As if another library cut out less: eight bolts are missed."""
    dataset, found = dataset_of(layout, load_params(layout.params), "val"), ProposalFile(layout.proposals("val"))
    fewer = [(p, found.of(p).take(np.arange(1 if p.id < 9 else 0, 4))) for p in dataset.images]
    write_proposals(layout.proposals("val"), fewer)


def _damage_proposals(layout: Layout) -> None:
    layout.proposals("val").write_bytes(b"PAR1 no more")


def _rot(layout: Layout) -> None:
    path = next(layout.state.glob("mlartifacts/**/classifier.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (None, ()),
        (_lighten, ("validation images: ", "missing or changed")),
        (_lose, ("validation images: ", "missing or changed")),
        (_propose_otherwise, ("scores: AP of all classes was", "bolt most")),
        (_damage_proposals, ("could not be scored again", "damaged")),
        (_rot, ("classifier: ",)),
    ],
)
def test_a_replay_finds_what_differs_from_the_registration(
    tagged: TaggedLine, tmp_path: Path, harm: Callable[[Layout], None] | None, words: tuple[str, ...]
) -> None:
    line = tagged.copy(tmp_path / "line")
    if harm is not None:
        harm(line.layout)
    watch = line.params.watch.model_copy(update={"replay_images": 0})
    done = replay(line.layout, line.params.model_copy(update={"watch": watch}), line.registry, "demo-classifier/1")
    assert bool(done.differences) == bool(words) and all(word in "; ".join(done.differences) for word in words)
    assert done.images == 24


def _scored(monkeypatch: pytest.MonkeyPatch, move: float, false_positives: float = 0.0) -> None:
    """Scores as another processor would give them: every AP moved, and the rate of false positives."""
    measure = Scorer.measure

    def moved(self: Scorer, ref: str) -> Any:
        scored = measure(self, ref)
        document = scored.evaluation.model_dump(mode="json")
        for score in document["per_class"].values():
            score["ap"] -= move
        document["unknown"]["unlabelled_false_positives_per_image"] += false_positives
        return replace(scored, evaluation=Evaluation.model_validate(document))

    monkeypatch.setattr(Scorer, "measure", moved)


@pytest.mark.parametrize(
    ("move", "false_positives", "differs"),
    [(SAME_POINTS / 2, 0.0, False), (0.0, 0.01, False), (2 * SAME_POINTS, 0.0, True)],
)
def test_a_replay_tolerates_what_the_gates_tolerate(
    tagged: TaggedLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    move: float,
    false_positives: float,
    differs: bool,
) -> None:
    line = tagged.copy(tmp_path / "line")
    _scored(monkeypatch, move, false_positives)
    watch = line.params.watch.model_copy(update={"replay_images": 0})
    done = replay(line.layout, line.params.model_copy(update={"watch": watch}), line.registry, "demo-classifier/1")
    assert bool(done.differences) == differs


def test_a_registry_that_does_not_answer_is_no_difference(
    tagged: TaggedLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the poll, and the next one replays again; an alarm would be false."""
    line = tagged.copy(tmp_path / "line")

    def refuse(self: Scorer, ref: str) -> Any:
        raise ServiceUnavailable("the registry does not answer; start it")

    monkeypatch.setattr(Scorer, "measure", refuse)
    watch = line.params.watch.model_copy(update={"replay_images": 0})
    with pytest.raises(ServiceUnavailable):
        replay(line.layout, line.params.model_copy(update={"watch": watch}), line.registry, "demo-classifier/1")


def test_images_encoded_again_are_what_the_store_holds(made: WatchedLine, tmp_path: Path) -> None:
    line = made.copy(tmp_path / "line")
    assert _encode_again(line.layout, line.params) == (2, [])
    store = line.root / ".samif" / "embeddings"
    other = line.copy(tmp_path / "other")
    shutil.rmtree(store)
    with pytest.raises(SamifError):
        _encode_again(line.layout, line.params)
    _overwrite(other)
    count, differences = _encode_again(other.layout, other.params)
    assert count == 2 and len(differences) == 1 and "encoded again differ from the stored ones" in differences[0]


def _overwrite(line: WatchedLine) -> None:
    """A store that holds other embeddings under the same names: as a changed library would store."""
    manifest = EmbeddingManifest.load(line.layout.embeddings)
    shutil.rmtree(line.root / ".samif" / "embeddings")
    namespace = store_of(line.layout, line.params).namespace(manifest.encoder.digest, manifest.preprocessing)
    generator = torch.Generator().manual_seed(0)
    namespace.write(manifest.images, torch.randn((len(manifest.images), *manifest.shape), generator=generator))
