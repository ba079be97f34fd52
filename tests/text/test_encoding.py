"""Bytes become the text that people mean, or an error that names the byte: never other letters without a word."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import ConfigError, DataError
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.formats import encoding
from tinygrad_chat.text.formats.encoding import decode, find_encoding, named_encoding

FRENCH = "Où est passé l’été ? À la plage, déjà. « Voilà », dit-elle, ça va être très étrange…\n" * 4  # noqa: RUF001
POLISH = "Król mówił, że był głodny i chciał wrócić do domu.\n" * 4
RUSSIAN = "Все счастливые семьи похожи друг на друга.\n" * 4  # noqa: RUF001
JAPANESE = "吾輩は猫である。名前はまだ無い。\n" * 4


def read(path: Path, **options: Any) -> str:
    return "".join("".join(document) for document in open_corpus(str(path), **options).documents())


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_way_to_write_a_text_is_read_as_that_text(tmp_path: Path, codec: str, line_end: str):
    path = tmp_path / "a.txt"
    path.write_bytes(FRENCH.replace("\n", line_end).encode(codec))
    assert read(path) == FRENCH


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark_is_known_by_its_zeros(tmp_path: Path, codec: str):
    path = tmp_path / "a.txt"
    path.write_bytes(("\ufeff" + FRENCH).encode(codec))
    assert read(path) == FRENCH
    path.write_bytes(b"plain English\n".decode().encode(codec))
    assert read(path) == "plain English\n"


@pytest.mark.parametrize(
    ("text", "codec"),
    [(POLISH, "iso8859-2"), (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r"), (JAPANESE, "shift-jis"), (JAPANESE, "euc-jp")],
)
def test_what_may_be_of_another_alphabet_is_not_guessed_but_read_by_its_name(tmp_path: Path, text: str, codec: str):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(codec))
    with pytest.raises(DataError, match=r"a\.txt: byte 0x.. at offset \d+ is not UTF-8; name the file's encoding"):
        read(path)
    assert read(path, encoding=codec) == text


def test_utf8_with_a_broken_byte_is_not_taken_for_latin1(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(FRENCH.encode() + b"\xe9" + FRENCH.encode())
    with pytest.raises(DataError, match=f"byte 0xe9 at offset {len(FRENCH.encode())} is not UTF-8"):
        read(path)


def test_utf8_and_latin1_in_one_file_are_neither(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes((b"caf\xc3\xa9 " + b"d\xe9j\xe0 vu ") * 9 + "café au lait ".encode() * 9)
    with pytest.raises(DataError, match="byte 0xe9 at offset 7 is not UTF-8"):
        read(path)


def test_what_follows_the_beginning_must_have_its_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "PIECE", 16)
    path = tmp_path / "a.txt"
    path.write_bytes(b"plain at first, then a caf\xe9")
    with pytest.raises(DataError, match="byte 0xe9 at offset 26 is not UTF-8"):
        read(path)
    path.write_bytes("\ufeffplain at first".encode() + b"\xff")
    with pytest.raises(DataError, match="byte 0xff at offset 17 is not UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF"),
        (b"PK\x03\x04\x14\0\xff", "zip archive"),
        (b"\x89PNG\r\n\x1a\n\0", "is an image; name a text file, or train on its bytes"),
        (b"\x1f\x8b\x08\0\xff", "rename it to end in .gz"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, beginning: bytes, words: str):
    path = tmp_path / "a.txt"
    path.write_bytes(beginning)
    with pytest.raises(DataError, match=words):
        read(path)


def test_an_encoding_that_nobody_knows_is_refused():
    for name in ("klingon", "base64", "a\0b"):
        with pytest.raises(ConfigError, match="--encoding: expected a name such as utf-8"):
            named_encoding(name)


def test_how_files_were_decoded_is_said_in_one_line(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(FRENCH.encode("cp1252"))
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbftext\r\n")
    (tmp_path / "c.txt").write_bytes("text".encode("utf-16"))
    (tmp_path / "d.txt").write_bytes(b"as everybody would")
    (note,) = open_corpus(str(tmp_path)).notes
    for words in (
        "1 file as Windows-1252",
        "1 file without the byte-order mark",
        "1 file with CRLF",
        "1 file as UTF-16",
    ):
        assert words in note
    assert open_corpus(str(tmp_path / "d.txt")).notes == ()


@given(st.binary(max_size=200), st.integers(1, 7))
def test_any_bytes_come_through_whole_or_as_the_text_that_they_are(content: bytes, piece: int):
    with pytest.MonkeyPatch.context() as patch:
        found = find_encoding(content)
        patch.setattr(encoding, "PIECE", piece)
        pieces = "".join(decode(io.BytesIO(content), found, Path("a"), any_bytes=True))
    if found is None:
        assert pieces.encode("utf-8", "surrogateescape") == content
    else:
        text = content.decode(found.codec).removeprefix("\ufeff" if found.mark else "")
        assert pieces == text.replace("\r\n", "\n").replace("\r", "\n")
