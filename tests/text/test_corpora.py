"""Corpora: every document of every kind of source, and one line for each kind of trouble."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.formats import encoding


def documents(data: object, text_field: str = "text") -> list[str]:
    return ["".join(document) for document in open_corpus(str(data), text_field=text_field).documents()]


def test_a_text_file_is_one_document_to_the_last_byte(tmp_path: Path):
    path = tmp_path / "a.txt"
    content = "line\nlíne\n\n日本 end"
    path.write_bytes(content.encode())
    assert documents(path) == [content]


def test_pieces_of_a_large_file_cut_no_character(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "PIECE", 5)
    path = tmp_path / "a.txt"
    path.write_text("aé日\U0001f600" * 9, encoding="utf-8")
    assert documents(path) == ["aé日\U0001f600" * 9]


def test_a_folder_yields_its_files_in_order_and_leaves_hidden_ones_out(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    for name, text in [("b.txt", "b"), ("a.md", "a"), ("deep/c.txt", "c"), (".hidden", "x"), (".git/y.txt", "y")]:
        (tmp_path / name).write_text(text)
    (tmp_path / "d.jsonl").write_text('{"text": "d1"}\n{"text": "d2"}\n')
    assert documents(tmp_path) == ["a", "b", "d1", "d2", "c"]


def test_each_row_of_a_jsonl_file_is_a_document(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"body": text, "id": 1}) for text in ["one\ntwo", "日", ""]) + "\n\n")
    assert documents(path, text_field="body") == ["one\ntwo", "日", ""]


def test_documents_can_be_read_again():
    corpus = open_corpus("pydoc")
    first = ["".join(document) for document in corpus.documents()]
    assert first == ["".join(document) for document in corpus.documents()]
    assert 300_000 < sum(map(len, first)) < 1_000_000


@pytest.mark.parametrize("offset", [0, 3, 4, 9, 12])
def test_a_byte_that_is_no_utf8_is_named_with_its_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int):
    monkeypatch.setattr(encoding, "PIECE", 4)
    content = bytearray("añb日cdefghij".encode())
    content[offset:offset] = b"\xff"
    path = tmp_path / "latin.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        documents(path)
    first_bad = _first_undecodable(bytes(content))
    assert f"byte 0x{content[first_bad]:02x} at offset {first_bad} is not UTF-8" in str(caught.value)
    assert "--encoding" in str(caught.value)


def _first_undecodable(content: bytes) -> int:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("the content decodes")


def test_any_bytes_come_through_where_they_are_asked_for(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9\xff")
    (document,) = open_corpus(str(path)).documents(any_bytes=True)
    assert "".join(document).encode("utf-8", "surrogateescape") == b"caf\xe9\xff"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 2: expected one JSON object per line"),
        ("[1]", "line 2: expected an object with text under 'text', received a list"),
        ('{"body": "x"}', "line 2: expected text under 'text', received the keys body; name one with --text-field"),
        ('{"text": 3}', "line 2: expected text under 'text', received a number"),
        ('{"text": null}', "line 2: expected text under 'text', received null; remove the row"),
        ('{"text": ["a", "b"]}', "received a list; write the training text as one string per row"),
        ('{"text": "\\ud800"}', "line 2: an unpaired surrogate"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: str, message: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(DataError) as caught:
        documents(path)
    assert message in str(caught.value)


def test_what_is_not_there_is_refused_with_the_built_in_names(tmp_path: Path):
    with pytest.raises(DataError, match="not one of the built-in names pydoc, shakespeare, names"):
        open_corpus(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="contains no text files"):
        open_corpus(str(tmp_path))
