"""The folder of kept answers: its limits, several writers, crashes and foreign files."""

from __future__ import annotations

import errno
import multiprocessing
import shutil
from pathlib import Path

import pytest

from flows.artifacts.kept_answers import KeptAnswers, is_kept_folder
from flows.inference.image_files import find_images
from samif.errors import ConfigError, IntegrityError
from samif.io import files
from tests.support.kept import answer_to, keep
from tests.support.served_line import png


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").iterdir())


def size(folder: Path) -> int:
    return sum(path.stat().st_size for part in ("images", "answers") for path in (folder / part).iterdir())


def test_answers_come_back_with_their_images(tmp_path: Path) -> None:
    bodies = [png(seed) for seed in range(3)]
    answers = [answer_to(body) for body in bodies]
    for body, answer in zip(bodies, answers, strict=True):
        assert keep(tmp_path, body, answer)
    kept = KeptAnswers(tmp_path)
    assert list(kept.answers()) == answers
    assert [(kept.images / answer.image).read_bytes() for answer in answers] == bodies
    found = find_images([tmp_path])
    assert [image.name for image in found.images] == [answer.image for answer in answers] and found.skipped == ()


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_oldest_are_removed_at_the_limit_of_images(tmp_path: Path, most: int) -> None:
    answers = [answer_to(png(seed)) for seed in range(6)]
    for seed, answer in enumerate(answers):
        keep(tmp_path, png(seed), answer, images=most)
        assert len(names(tmp_path)) <= most
    assert list(KeptAnswers(tmp_path).answers()) == answers[-most:]


@pytest.mark.parametrize("share", [1.5, 2.5, 4.0])
def test_the_oldest_are_removed_at_the_limit_of_bytes(tmp_path: Path, share: float) -> None:
    answers = [answer_to(png(seed)) for seed in range(6)]
    limit = int(share * (len(png(0)) + len(answers[0].content())) * 1.05)
    for seed, answer in enumerate(answers):
        keep(tmp_path, png(seed), answer, size=limit)
        assert size(tmp_path) <= limit
    assert list(KeptAnswers(tmp_path).answers()) == answers[-int(share) :]


def test_what_exceeds_the_limit_alone_removes_nothing(tmp_path: Path) -> None:
    keep(tmp_path, png(0), answer_to(png(0)))
    large = png(1, 200, 200)
    assert not keep(tmp_path, large, answer_to(large), size=len(large))
    assert len(names(tmp_path)) == 1


def write_many(folder: Path, start: int) -> None:
    for seed in range(start, start + 12):
        keep(folder, png(seed), answer_to(png(seed)), images=5)


def test_several_processes_write_to_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, 100 * number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(names(tmp_path)) == len(list(KeptAnswers(tmp_path).answers())) == 5


@pytest.mark.parametrize("failing", ["image", "answer"])
def test_a_full_disk_leaves_no_half_answer(tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer_to(png(0))
    keep(tmp_path, png(0), first)
    commit = files.commit

    def full(path: Path, content: bytes) -> None:
        if (path.suffix == ".json") == (failing == "answer"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        commit(path, content)

    monkeypatch.setattr("flows.artifacts.kept_answers.files.commit", full)
    with pytest.raises(OSError, match="No space left"):
        keep(tmp_path, png(1), answer_to(png(1)))
    monkeypatch.undo()
    assert list(KeptAnswers(tmp_path).answers()) == [first]
    later = answer_to(png(2))
    keep(tmp_path, png(2), later, images=1)
    assert list(KeptAnswers(tmp_path).answers()) == [later] and len(names(tmp_path)) == 1


def test_drafts_of_a_killed_writer_go_and_labels_beside_images_stay(tmp_path: Path) -> None:
    answer = answer_to(png(0))
    keep(tmp_path, png(0), answer)
    (tmp_path / "images" / ".tmp-0123").write_bytes(b"x" * 100)
    label = (tmp_path / "images" / answer.image).with_suffix(".json")
    label.write_text("labels of a person")
    (tmp_path / "images" / "notes.png").write_bytes(png(5))
    keep(tmp_path, png(1), answer_to(png(1)), images=1)
    left = set(names(tmp_path))
    assert {label.name, "notes.png"} <= left and len(left) == 3 and answer.image not in left


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": 2}', b"no json"])
def test_a_damaged_answer_is_named(tmp_path: Path, content: bytes) -> None:
    answer = answer_to(png(0))
    keep(tmp_path, png(0), answer)
    (path,) = (tmp_path / "answers").iterdir()
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{path.name}.*; delete it"):
        list(KeptAnswers(tmp_path).answers())


def test_an_answer_without_its_image_does_not_count(tmp_path: Path) -> None:
    keep(tmp_path, png(0), answer_to(png(0)))
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").mkdir()
    assert list(KeptAnswers(tmp_path).answers()) == [] and KeptAnswers(tmp_path).answer("gone.png") is None


@pytest.mark.parametrize("name", ["photo.jpg", "sub/photo.jpg", "notes.txt"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ConfigError, match="give another folder with --keep"):
        KeptAnswers(tmp_path).create()
    assert not is_kept_folder(tmp_path)
