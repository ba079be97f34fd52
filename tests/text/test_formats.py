"""Every kind of file gives its text, as a document a row where it has rows; what is damaged is said in one line."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import BackendError, DataError
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.conversations.document import ChatDocument
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.formats import compression, rows
from tinygrad_chat.text.formats.html import page_text

ROWS = ["one\ntwo", "three, four", 'five "six"', "sieben ß"]


def documents(path: Path, **options: Any) -> list[str]:
    return ["".join(document) for document in open_corpus(str(path), **options).documents()]


def as_jsonl() -> bytes:
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in ROWS).encode()


def as_csv(separator: str = ",", name: str = "text") -> bytes:
    cells = ['"' + text.replace('"', '""') + '"' for text in ROWS]
    return f"id{separator}{name}\n".encode() + "".join(f"1{separator}{cell}\n" for cell in cells).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", as_jsonl()),
        ("A.JSONL", as_jsonl()),
        ("a.ndjson", as_jsonl().replace(b"\n", b"\r\n")),
        ("a.jsonl", as_jsonl().decode().encode("utf-16")),
        ("a.jsonl", b"\xef\xbb\xbf" + as_jsonl()),
        ("a.jsonl.gz", gzip.compress(as_jsonl(), mtime=0)),
        ("A.JSON.GZ", gzip.compress(json.dumps([{"text": text} for text in ROWS]).encode(), mtime=0)),
        ("a.json", json.dumps([{"text": text} for text in ROWS], indent=2).encode()),
        ("a.json", as_jsonl()),
        ("a.csv", as_csv()),
        ("a.CSV", b"\xef\xbb\xbf" + as_csv(";").replace(b"\n1", b"\r\n1")),
        ("a.tsv", as_csv("\t")),
    ],
)
def test_each_row_is_a_document(tmp_path: Path, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    assert documents(path) == ROWS


@pytest.mark.parametrize("suffix", ["txt", "md", "rst", "py", "TXT", "log", "", "html.bak"])
def test_whatever_else_is_text_is_read_as_it_stands(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    path.write_text("<b>as it</b> stands\n")
    assert documents(path) == ["<b>as it</b> stands\n"]
    path.with_name("b.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert documents(path.with_name("b.gz")) == ["<b>as it</b> stands\n"]


def test_a_table_without_that_column_is_read_row_by_row_and_says_so(tmp_path: Path):
    path = tmp_path / "names.csv"
    path.write_text('emma,F\n"a, b",M\n')
    assert documents(path) == ["emma,F", '"a, b",M']
    (note,) = open_corpus(str(path)).notes
    assert "row by row, as there is no column 'text'" in note
    with pytest.raises(DataError, match="expected a column 'body', received emma, F; name one with --text-field"):
        documents(path, text_field="body")
    path.write_text("id,body\n1,one\n\n2\n")
    with pytest.raises(DataError, match="line 4: expected at least 2 cells, received 1"):
        documents(path, text_field="body")


def test_a_page_is_its_text_without_tags_and_scripts(tmp_path: Path):
    path = tmp_path / "page.HTML"
    path.write_bytes(
        b"<!doctype html><html><head><meta charset=windows-1251><title>T</title><style>p{}</style></head><body>"
        b"<p>\xcf\xf0\xe8\xe2\xe5\xf2 &amp; <b>bo</b>ld<br>next   line</p>"
        b"<script>if (a < b) alert('<p>no</p>')</script>"
        b"<pre>  as\n it is</pre><!-- no --><table><tr><td>1</td><td>2</td></tr></table></body></html>"
    )
    assert documents(path) == ["T\n\nПривет & bold\nnext line\n\n  as\n it is\n\n1\t2\n"]  # noqa: RUF001


@given(st.lists(st.sampled_from(["<p>", "</p>", "<scr", "ipt>", "</script>", "a b", " ", "&am", "p;", "<", "é"])))
def test_where_a_page_is_cut_into_pieces_makes_no_difference(pieces: list[str]):
    assert "".join(page_text(pieces)) == "".join(page_text(["".join(pieces)]))


@given(st.lists(st.text(max_size=30), max_size=8), st.integers(1, 9), st.sampled_from([None, 1]))
def test_where_json_is_cut_into_pieces_makes_no_difference(texts: list[str], piece: int, indent: int | None):
    text = json.dumps([{"a": [{}], "text": each} for each in texts], indent=indent)
    pieces = [text[start : start + piece] for start in range(0, len(text), piece)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "SLICE", 3)
        assert ["".join(each) for each in rows.documents_of(rows.json_array(pieces, Path("a")), "text")] == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "package"}', "row 1: expected text under 'text', received the keys name"),
        ("[1, 2]", "row 1: expected an object with text under 'text', received a number"),
        ('[{"text": "a"}, {"text":', "row 2: expected a JSON array of objects"),
        ('[{"text": "a"}', r"row 2: expected a JSON array of objects \(it ends early\)"),
        ('[{"text": "a"} {"text": "b"}, nonsense]', "row 3: expected a JSON array of objects"),
        ('[{"text": "a"}] [1]', "expected one JSON array, received more after it"),
        ("[" * 100_000, "row 1: expected a JSON array of objects"),
    ],
)
def test_json_of_another_shape_is_named_by_its_row(tmp_path: Path, content: str, message: str):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        documents(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_row_that_memory_may_not_hold_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "LONGEST_ROW", 1000)
    monkeypatch.setattr(rows, "SLICE", 100)
    path = tmp_path / name
    path.write_text('{"text": "' + "x" * 3000 + '"}' if name != "a.csv" else 'text\n"' + "x\n" * 1500 + '"\n')
    with pytest.raises(DataError, match=r"too long|cannot be read as CSV"):
        documents(path)


def test_a_long_row_is_handed_on_in_slices(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x" * (5 << 20)}))
    tracemalloc.start()
    (document,) = open_corpus(str(path)).documents()
    assert [len(piece) for piece in document] == [1 << 20] * 5
    assert tracemalloc.get_traced_memory()[1] < 6 * (5 << 20)
    tracemalloc.stop()


def test_a_compressed_file_that_was_cut_short_is_damaged(tmp_path: Path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"text" * 1000, mtime=0)[:-9])
    with pytest.raises(DataError, match=r"a\.txt\.gz: is damaged, or not a \.gz file"):
        documents(path)


def missing(name: str) -> object:
    raise ImportError(name)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.txt.zst"])
def test_what_becomes_hundreds_of_times_as_long_is_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setattr(compression, "ALWAYS", 1 << 20)
    zstandard = pytest.importorskip(compression.ZSTANDARD) if name.endswith("zst") else None
    compress = zstandard.compress if zstandard else gzip.compress
    path = tmp_path / name
    path.write_bytes(compress(b'{"text": "a"}\n' * 300_000))
    with pytest.raises(DataError, match=r": holds more than 200 times its compressed size, which text never does"):
        documents(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.parquet", "needs pyarrow, the extra parquet: pip install pyarrow"),
        ("a.txt.zst", "needs backports.zstd, the extra zstd: pip install backports.zstd"),
    ],
)
def test_a_library_that_is_missing_is_named(tmp_path: Path, name: str, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compression, "ZSTANDARD", "backports.zstd")
    monkeypatch.setattr(compression, "import_module", missing)
    (tmp_path / name).write_bytes(b"PAR1")
    for data in (tmp_path / name, tmp_path):
        with pytest.raises(BackendError, match=words):
            documents(data)


def test_zstandard_is_read_whole_or_not_at_all(tmp_path: Path):
    zstandard = pytest.importorskip(compression.ZSTANDARD)
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(as_jsonl()) + zstandard.compress(b'{"text": "second frame"}\n'))
    assert documents(path) == [*ROWS, "second frame"]
    for content in (path.read_bytes()[:-9], b"nonsense" * 9):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is damaged, or not a \.zst file"):
            documents(path)


def test_parquet_is_read_by_its_column(tmp_path: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "A.Parquet"
    parquet.write_table(arrow.table({"text": ROWS * 300, "n": list(range(1200)), "list": [[1]] * 1200}), path)
    assert documents(path) == ROWS * 300
    for field, words in {
        "n": "received a number",
        "list": "received a list",
        "body": "expected a column 'body'",
    }.items():
        with pytest.raises(DataError, match=words):
            documents(path, text_field=field)
    parquet.write_table(arrow.table({"text": ["a", None]}), path)
    with pytest.raises(DataError, match="row 2: expected text under 'text', received null"):
        documents(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        documents(path)


HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}


@pytest.mark.parametrize(
    "columns",
    [
        {"messages": [[HI, HELLO]]},
        {"prompt": ["Hi"], "messages": [[{**HI, "tool_calls": None}, HELLO]]},  # each struct has the keys of all
        {"conversations": [[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]]},
        {"instruction": ["Hi"], "input": [""], "output": ["Hello."]},
        {"input": ["Hi"], "output": ["Hello."], "score": [1]},
    ],
    ids=lambda columns: " ".join(columns),
)
def test_parquet_holds_conversations_as_rows_of_json_do(tmp_path: Path, columns: dict[str, list[Any]]):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    (tmp_path / "a.png").touch()
    for data in (tmp_path, tmp_path / "a.parquet"):
        corpus = open_corpus(str(data))
        assert corpus.conversations
        assert list(corpus.documents()) == [ChatDocument(Conversation.of("Hi", "Hello."))]
    parquet.write_table(arrow.table({**columns, "text": ["a"]}), tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == ["a"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[HI, HELLO], None], "row 2: messages: expected a list of messages, received null"),
        ([[HI, HELLO], [HI, HI]], r"row 2: messages\[1\]\.role: expected 'assistant', received 'user'"),
        (["[]"], r"row 1: messages: expected a list of messages, received '\[\]'"),
    ],
)
def test_a_row_of_parquet_that_is_no_conversation_is_named(tmp_path: Path, rows: list[Any], words: str):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"messages": rows}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=words):
        documents(tmp_path / "a.parquet")
