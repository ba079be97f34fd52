"""What a folder or a pattern means: its text, in order, and a word on everything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.corpora import open_corpus, settle_source
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.finding import holds_run


def documents(*data: object) -> list[str]:
    corpus = open_corpus([str(each) for each in data])
    return ["".join(document) for document in corpus.documents()]


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_folder_of_everything_gives_its_text_and_says_what_it_left_out(tmp_path: Path):
    fill(
        tmp_path,
        {
            "a.txt": b"a",
            "b.md": b"b",
            "code/c.py": b"c",
            "photo.PNG": b"\x89PNG\r\n\x1a\n\0",
            "more/photo.png": b"\x89PNG\r\n\x1a\n\0",
            "paper.pdf": b"%PDF-1.4\nplain so far",
            "drawing.svg": b"<svg></svg>",
            "all.zip": b"PK\x03\x04\0",
            "package.json": b'{"name": "package"}',
            "log.jsonl": b'{"step": 1}\n',
            ".git/config": b"hidden",
            ".DS_Store": b"\0",
            "z.jsonl": b'{"text": "z"}\n',
        },
    )
    (tmp_path / "link").symlink_to(tmp_path / "code")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert documents(tmp_path) == ["a", "b", "c", "z"]
    corpus = open_corpus(str(tmp_path))
    (note,) = corpus.notes
    assert "\n" not in note
    for words in (
        "2 hidden",
        "2 .png",
        "1 .pdf",
        "(no text)",
        "(no text under 'text')",
        "1 linked folder",
        "(no file)",
    ):
        assert words in note
    left_out = {each.path.relative_to(tmp_path).as_posix(): each.reason for each in corpus.left_out}
    assert left_out["more/photo.png"] == "no text"
    assert len(left_out) == 11


def test_where_no_text_is_left_the_reason_is_the_error(tmp_path: Path):
    fill(tmp_path, {"a.png": b"\x89PNG\0"})
    with pytest.raises(DataError, match=r"contains no text files \(1 \.png \(no text\)\)"):
        open_corpus(str(tmp_path))
    fill(tmp_path, {"b.jsonl": b'{"body": "b"}\n'})
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: expected text under 'text', received the keys body"):
        documents(tmp_path)


def test_runs_and_ablations_among_the_data_are_left_out(tmp_path: Path):
    fill(
        tmp_path,
        {
            "note.txt": b"note",
            "runs/a/log.jsonl": b"",
            "runs/a/checkpoints/step-1/state.json": b"{}",
            "runs/a/samples/step-1.txt": b"sample",
            "runs/note.txt": b"beside a run",
            "imported/config.toml": b"",
            "imported/checkpoints/step-0/state.json": b"{}",
            "ablations/b/ablation.json": b"{}",
            "ablations/b/results.csv": b"x",
            "ablations/b/runs/c.txt": b"x",
            "site/config.toml": b"no run",
        },
    )
    assert documents(tmp_path) == ["note", "beside a run", "no run"]
    assert "3 runs" in open_corpus(str(tmp_path)).notes[0]
    assert documents(tmp_path / "*") == documents(tmp_path)
    assert documents(tmp_path / "runs/a/samples") == ["sample"]
    with pytest.raises(DataError, match="is a run's folder, not text"):
        open_corpus(str(tmp_path / "runs/a"))


def test_a_run_that_is_just_being_made_is_one_already(start):
    assert holds_run(start().folder.path)


def test_a_pattern_fits_files_and_folders_and_stays_in_order(tmp_path: Path):
    fill(tmp_path, {"b.txt": b"b", "a.txt": b"a", "c.md": b"c", "d/e/f.txt": b"f", "d/.g.txt": b"g", "h.txt": b"\0"})
    assert documents(tmp_path / "*.txt") == ["a", "b"]
    assert documents(tmp_path / "**/*.txt") == ["a", "b", "f"]
    assert documents(tmp_path / "[bc].*") == ["b", "c"]
    assert documents(tmp_path / "?/e") == ["f"]
    fill(tmp_path, {"really[1].txt": b"1"})
    assert documents(tmp_path / "really[1].txt") == ["1"]
    with pytest.raises(DataError, match="contains no text files"):
        open_corpus(str(tmp_path / "*.html"))


def test_several_names_are_read_one_after_the_other(tmp_path: Path):
    fill(tmp_path, {"a.txt": b"a", "b/c.txt": b"c", "b/d.png": b"\0"})
    assert documents(tmp_path / "b", tmp_path / "a.txt") == ["c", "a"]
    corpus = open_corpus([str(tmp_path / "b"), str(tmp_path / "a.txt")])
    assert corpus.name == f"{tmp_path / 'b'} and 1 more"
    assert len(corpus.left_out) == 1
    one, two = (
        open_data([str(tmp_path / name) for name in names], "bytes") for names in (("a.txt", "b"), ("b", "a.txt"))
    )
    assert one.contents.sha256 != two.contents.sha256


def test_what_is_named_twice_is_read_once(tmp_path: Path):
    fill(tmp_path, {"a.txt": b"a", "b.txt": b"b"})
    assert documents(tmp_path / "b.txt", tmp_path) == ["b", "a"]
    assert documents(tmp_path, tmp_path / "*.txt") == ["a", "b"]
    assert "2 .txt (named twice)" in open_corpus([str(tmp_path), str(tmp_path / "*.txt")]).notes[0]


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders called locked cannot be listed, those called closed not be entered, and secret.txt not be read."""
    scan, stat, access = os.scandir, os.stat, os.access

    def refuse(path: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    def refuse_inside(path: Path, **options: bool) -> os.stat_result:
        return refuse(path) if Path(path).parent.name == "closed" else stat(path, **options)

    monkeypatch.setattr(os, "scandir", lambda folder: refuse(folder) if folder.name == "locked" else scan(folder))
    monkeypatch.setattr(os, "stat", refuse_inside)
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "secret.txt" and access(path, mode))


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize("data", ["", "*", "**/*.txt"])
def test_what_cannot_be_read_in_a_folder_is_left_out_and_named(tmp_path: Path, data: str):
    fill(tmp_path, {"a/b.txt": b"b", "a/secret.txt": b"s", "a/locked/c.txt": b"c", "closed/d.txt": b"d"})
    assert documents(tmp_path / data) == ["b"]
    corpus = open_corpus(str(tmp_path / data))
    named = {each.path.relative_to(tmp_path).as_posix() for each in corpus.left_out if each.reason == "cannot be read"}
    assert {"a/locked", "a/secret.txt"} < named
    assert any(name.startswith("closed") for name in named)
    (note,) = corpus.notes
    assert "left out 3 that cannot be read (" in note
    assert "a/locked, " in note


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("locked", r"locked: cannot be read \(Permission denied\)"),
        ("closed", r"closed: cannot be read \(Permission denied\)"),
        ("closed/c.txt", r"c.txt: cannot be read \(Permission denied\)"),
        ("locked/*.txt", r"contains no text files \(1 that cannot be read \(.*locked\)\)"),
    ],
)
def test_what_is_named_and_cannot_be_read_is_an_error(tmp_path: Path, data: str, said: str):
    fill(tmp_path, {"locked/c.txt": b"c", "closed/c.txt": b"c"})
    with pytest.raises(DataError, match=said):
        open_corpus(str(tmp_path / data))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_is_no_data_and_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="expected a file, received a pipe; pipe a program's output in, as in: "):
        open_corpus(str(tmp_path / "pipe.txt"))
    fill(tmp_path, {"a.txt": b"a"})
    assert documents(tmp_path) == documents(tmp_path / "*.txt") == ["a"]
    assert "(no file)" in open_corpus(str(tmp_path)).notes[0]


def test_links_that_a_user_names_are_followed(tmp_path: Path):
    fill(tmp_path, {"there/a.txt": b"a"})
    (tmp_path / "folder").symlink_to(tmp_path / "there")
    (tmp_path / "link.txt").symlink_to(tmp_path / "there/a.txt")
    assert documents(tmp_path / "folder") == documents(tmp_path / "link.txt") == documents(tmp_path / "fold*") == ["a"]


def test_a_name_that_is_no_utf8_is_kept_as_an_address(tmp_path: Path):
    path = tmp_path / os.fsdecode(b"caf\xe9 100%.txt")
    path.write_text("text")
    address = settle_source(str(path))
    assert isinstance(address, str)
    assert address.isascii()
    assert documents(address) == documents(path) == ["text"]
    assert settle_source(["a", str(path)]) == ("a", address)


def test_a_change_of_what_is_left_out_or_of_how_it_is_read_is_another_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tinygrad_chat.text.token_cache.COARSEST_CLOCK", -(10**9))
    fill(tmp_path, {"a.txt": "ä".encode() * 9, "b.txt": b"\0"})
    assert open_data(str(tmp_path), "characters").tokenizer.size == 2
    assert open_data(str(tmp_path), "characters", encoding="latin-1").tokenizer.size == 3
    assert open_data(str(tmp_path), "characters").tokenizer.size == 2
    fill(tmp_path, {"b.txt": b"b"})
    assert open_data(str(tmp_path), "characters").contents.documents == 2
