"""What the token store is measured on is a text of the size that is asked for, and the same each time."""

from __future__ import annotations

from pathlib import Path

from bench import token_store
from tinygrad_chat.text.corpora import open_corpus


def test_the_stream_has_its_size_and_is_the_same_each_time(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(token_store, "WORDS", 500)
    monkeypatch.setattr(token_store, "ROWS", 10)
    for name in ("a.jsonl", "b.jsonl"):
        token_store.write_stream(tmp_path / name, 50_000)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert 50_000 <= (tmp_path / "a.jsonl").stat().st_size < 120_000
    lengths = [len("".join(document)) for document in open_corpus(str(tmp_path / "a.jsonl")).documents()]
    assert max(lengths) > 5 * min(lengths)
