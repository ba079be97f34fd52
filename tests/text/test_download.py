"""Downloads: fetched once from a server on this machine, checked, cached; no half file and no bad one stays."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinygrad_chat.errors import DataError
from tinygrad_chat.text import download as module
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.download import DOWNLOADS, Download, download

CONTENT = b"emma\nolivia\n"


class Handler(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Handler.requests = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/text"
    server.shutdown()
    server.server_close()


def serve(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str | None = None, by_line: bool = False) -> None:
    source = Download(url, sha256 or hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), by_line)
    monkeypatch.setitem(module.DOWNLOADS, "names", source)


def test_a_corpus_is_fetched_once_and_its_progress_told(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url)
    told: list[tuple[str, int, int]] = []
    assert download("names", lambda *progress: told.append(progress)).read_bytes() == CONTENT
    assert told[-1] == ("fetching", len(CONTENT), len(CONTENT))
    download("names")
    assert Handler.requests == 1
    assert [path.name for path in cache.iterdir()] == ["names.txt"]


def test_a_cached_file_that_was_changed_is_fetched_again(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url)
    download("names").write_bytes(b"tampered")
    assert download("names").read_bytes() == CONTENT


def test_content_with_another_hash_is_refused_and_not_kept(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url, sha256="0" * 64)
    with pytest.raises(DataError, match="expected 000000000000"):
        download("names")
    assert list(cache.iterdir()) == []


def test_offline_is_one_line_with_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, "http://127.0.0.1:9/")  # the discard port: nobody listens
    with pytest.raises(DataError) as caught:
        download("names")
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot fetch" in message
    assert "--data pydoc" in message
    assert list(cache.iterdir()) == []


def test_names_are_a_document_a_line(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url, by_line=True)
    assert ["".join(document) for document in open_corpus("names").documents()] == ["emma", "olivia"]


def test_the_shipped_hash_is_that_of_the_shakespeare_text(shakespeare: Path):
    content = shakespeare.read_bytes()
    assert hashlib.sha256(content).hexdigest() == DOWNLOADS["shakespeare"].sha256
    assert len(content) == DOWNLOADS["shakespeare"].size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_what_the_cache_holds_instead_of_a_file_is_replaced(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url)
    path = download("names")
    kept = path.rename(cache / "elsewhere")
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to(kept)):
        path.unlink(missing_ok=True)
        make()
        assert download("names") == path
        assert path.is_file()
        assert not path.is_symlink()
