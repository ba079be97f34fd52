"""A store holds every token of every document, and is opened whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.layouts import EXAMPLES, Layout
from tests.unreadable import refuse_to_read
from tinygrad_chat.text import writing
from tinygrad_chat.text.corpora import Corpus
from tinygrad_chat.text.data import open_data, tokenize
from tinygrad_chat.text.token_store import DOCUMENTS, METADATA, TOKENS, TokenStore, checksum, in_use, open_store
from tinygrad_chat.text.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer

pieces = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4)


def expected(tokenizer: Tokenizer, documents: list[list[str]]) -> list[int]:
    return [token for each in documents for token in (tokenizer.bos, *tokenizer.encode("".join(each)).tolist())]


@given(st.lists(pieces, max_size=5), st.integers(1, 5))
def test_each_document_stands_after_its_bos_whole_and_in_order(documents: list[list[str]], chunk: int):
    corpus = Corpus("made", lambda any_bytes=False: iter(documents))
    alphabet = CharacterTokenizer("".join(piece for document in documents for piece in document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "CHUNK", chunk)
        new, again, raw = (tokenize(corpus, tokenizer) for tokenizer in ("characters", alphabet, ByteTokenizer()))
    assert new.tokenizer.state() == alphabet.state()
    assert new.tokens.dtype == again.tokens.dtype
    for store in (new, again, raw):
        assert store.tokens.tolist() == expected(store.tokenizer, documents)
        assert store.document_starts.tolist() == np.flatnonzero(store.tokens == store.tokenizer.bos).tolist()
        assert store.contents == new.contents


@pytest.mark.parametrize("layout", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_tokens_that_lie_in_another_memory_order_are_written_as_they_are(layout: Layout):
    class Own(ByteTokenizer):
        def encode_document(self, pieces):
            return map(layout.lay_out, super().encode_document(pieces))

    tokenizer = Own()
    store = tokenize(Corpus("made", lambda any_bytes=False: iter([["some"], ["text"]])), tokenizer)
    assert store.tokens.tolist() == expected(ByteTokenizer(), [["some"], ["text"]])


@pytest.mark.parametrize(("size", "bytes_per_token"), [(2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_tokens_take_the_fewest_bytes_that_hold_the_vocabulary(size: int, bytes_per_token: int):
    assert writing.token_type(size) == np.dtype(f"u{bytes_per_token}")


@pytest.fixture
def folder(text: Path, cache: Path) -> Path:
    open_data(str(text), "characters")
    (folder,) = (cache / "tokens").iterdir()
    return folder


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / name).open("rb+") as file:
            file.truncate((folder / name).stat().st_size - 1)

    return damage


def change(**changes: object) -> Callable[[Path], None]:
    """Edit the metadata, checksum and all."""

    def damage(folder: Path) -> None:
        metadata = json.loads((folder / METADATA).read_text())
        del metadata["checksum"]
        metadata |= changes
        (folder / METADATA).write_text(json.dumps({**metadata, "checksum": checksum(metadata)}))

    return damage


def move_the_split(folder: Path) -> None:
    """An edit that only the checksum gives away."""
    metadata = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps({**metadata, "held_out_from": metadata["held_out_from"] - 1}))


def lengthen(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(b"x")

    return damage


def as_pipe(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def flip_a_letter(folder: Path) -> None:
    content = (folder / METADATA).read_text()
    assert '"|u1"' in content
    (folder / METADATA).write_text(content.replace('"|u1"', '"|i1"'))


DAMAGES = {
    "tokens cut": cut(TOKENS),
    "documents cut": cut(DOCUMENTS),
    "metadata cut": cut(METADATA),
    "tokens gone": lambda folder: (folder / TOKENS).unlink(),
    "tokens longer": lengthen(TOKENS),
    "documents longer": lengthen(DOCUMENTS),
    "letter": flip_a_letter,
    "other split": move_the_split,
    "other format": change(format=0),
    "other tokenizer": change(tokenizer={"kind": "characters", "alphabet": "abc"}),
    "no tokenizer": change(tokenizer={"kind": "none"}),
    "no JSON": lambda folder: (folder / METADATA).write_text("[]"),
    "no contents": change(contents=None),
    **({name: as_pipe(name) for name in (TOKENS, DOCUMENTS, METADATA)} if os.name == "posix" else {}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_store_is_never_opened_but_made_anew(damage: Callable[[Path], None], folder: Path, text: Path):
    whole = open_store(folder, "text")
    assert whole is not None
    before = whole.tokens.tolist()
    assert len(before) == 901
    damage(folder)
    assert open_store(folder, "text") is None
    assert open_data(str(text), "characters").tokens.tolist() == before
    assert open_store(folder, "text") is not None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux says by which name a file is open")
def test_every_file_is_forced_to_the_disk_before_the_store_has_its_name(
    text: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    forced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched(descriptor: int) -> None:
        forced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def named(path: Path, target: Path) -> Path:
        if target.parent == cache / "tokens":
            assert {TOKENS, DOCUMENTS, METADATA} <= set(forced)
            forced.append("named")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "rename", named)
    open_data(str(text), "characters")
    assert "named" in forced


def test_a_store_under_a_strange_name_is_not_opened(folder: Path):
    assert open_store(folder.rename(folder.with_name("0" * 32)), "text") is None


@pytest.mark.profile("ci")
def test_a_store_is_in_use_as_long_as_its_tokens_are(folder: Path):
    def map_it() -> np.ndarray:
        store: TokenStore | None = open_store(folder, "text")
        assert store is not None
        return store.tokens[5:]

    assert not in_use(folder)
    tokens = map_it()
    assert in_use(folder)
    program = "import sys, pathlib, tinygrad_chat.text.token_store as s; print(s.in_use(pathlib.Path(sys.argv[1])))"
    assert subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True).stdout == "True\n"
    del tokens
    assert not in_use(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
@pytest.mark.parametrize("name", [TOKENS, DOCUMENTS, METADATA])
def test_a_store_of_pipes_and_links_is_made_anew_and_never_waited_for(folder: Path, text: Path, name: str):
    elsewhere = folder.parent / "elsewhere"
    (folder / name).rename(elsewhere)
    for make in (lambda: os.mkfifo(folder / name), lambda: (folder / name).symlink_to(elsewhere)):
        (folder / name).unlink(missing_ok=True)
        make()
        assert open_store(folder, "text") is None
        assert not in_use(folder) or name != TOKENS
        assert open_data(str(text), "characters").tokens.size
        assert (folder / name).is_file()
        assert not (folder / name).is_symlink()


def test_a_store_that_cannot_be_looked_at_may_be_in_use(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert not in_use(folder)
    refuse_to_read(monkeypatch, folder / TOKENS)
    assert in_use(folder)
