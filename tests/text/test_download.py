"""Downloads: fetched once from a server on this machine, checked, cached; no half file and no bad one stays."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tinygrad_chat.errors import DataError
from tinygrad_chat.text import download as module
from tinygrad_chat.text import fetching
from tinygrad_chat.text.corpora import open_corpus
from tinygrad_chat.text.download import DOWNLOADS, Download, download

CONTENT = b"emma\nolivia\n"


Answer = Callable[["Handler"], object]


class Handler(http.server.BaseHTTPRequestHandler):
    requests = 0
    answers: ClassVar[dict[str, Answer]] = {}

    def do_GET(self) -> None:
        type(self).requests += 1
        with contextlib.suppress(OSError):  # who asked has gone
            self.answers.get(self.path, Handler.answer)(self)

    def answer(self, content: bytes = CONTENT, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Handler.requests = 0
    monkeypatch.setattr(Handler, "answers", {})
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


def endless(content: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.answer()
        while True:
            handler.wfile.write(content)

    return answer


def drip(*beginning: bytes) -> Answer:
    """Send a byte again and again, each soon enough for a connection that only listens for silence."""

    def answer(handler: Handler) -> None:
        for line in beginning:
            handler.wfile.write(line)
        while True:
            handler.wfile.write(b"a")
            time.sleep(0.05)

    return answer


def redirect(location: str, body: bytes = b"") -> Answer:
    return lambda handler: handler.answer(body, 302, Location=location, Content_Length=len(body))


OK = b"HTTP/1.0 200 OK\r\n"

HOSTILE: dict[str, tuple[Answer, str]] = {
    "endless": (endless(b"x" * 4096), "it sent more than the 12 bytes expected"),
    "a header without end": (drip(OK, b"x" * (1 << 16)), "its response is not HTTP: LineTooLong"),
    "a redirect with a body without end": (
        redirect("/text", b"x" * (2 << 20)),
        "it sends endless headers or redirects",
    ),
    "a slow body": (drip(OK, b"\r\n"), "it timed out"),
    "slow headers": (drip(OK), "it timed out"),
    "redirects in a circle": (redirect("/hostile"), "HTTP 302 Found"),
    "ftp": (redirect("ftp://127.0.0.1/text"), "it redirects to ftp, expected http or https"),
    "file": (redirect("file:///etc/passwd"), "HTTP 302 Found"),
    "cut short": (lambda handler: handler.answer(CONTENT[:5], Content_Length=12), "the download ended early"),
    "missing": (lambda handler: handler.answer(b"x" * (2 << 20), 404), "HTTP 404 Not Found"),
    "no HTTP": (lambda handler: handler.wfile.write(b"\x00" * 40 + b"\n"), "its response is not HTTP: BadStatusLine"),
    "silence": (lambda handler: time.sleep(0.6), "it timed out"),
}


@pytest.mark.parametrize(("answer", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_server_without_end_or_measure_is_given_up(
    cache: Path, url: str, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    monkeypatch.setitem(Handler.answers, "/hostile", answer)
    serve(monkeypatch, url.replace("/text", "/hostile"))
    with pytest.raises(DataError) as caught:
        download("names")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(cache.glob("*"))


def test_a_redirect_to_another_address_is_followed(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(Handler.answers, "/moved", redirect(url))
    serve(monkeypatch, url.replace("/text", "/moved"))
    assert download("names").read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "link to nothing", "longer"])
def test_what_is_no_corpus_in_its_place_is_replaced_without_waiting(
    cache: Path, url: str, monkeypatch: pytest.MonkeyPatch, kind: str
):
    serve(monkeypatch, url)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / "names.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "longer":
        path.write_bytes(CONTENT * 2)
    else:
        (cache / "link").write_bytes(CONTENT)
        path.symlink_to("/dev/zero" if kind == "device" else cache / kind)
    assert download("names").read_bytes() == CONTENT
    assert path.is_file()
    assert not path.is_symlink()


def test_a_folder_in_the_place_of_a_corpus_is_named(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url)
    (cache / "names.txt").mkdir(parents=True)
    with pytest.raises(DataError, match=r"names\.txt: expected a file, received a folder; remove it$"):
        download("names")
    assert Handler.requests == 0


def test_names_are_a_document_a_line(cache: Path, url: str, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, url, by_line=True)
    assert ["".join(document) for document in open_corpus("names").documents()] == ["emma", "olivia"]


def test_the_shipped_hash_is_that_of_the_shakespeare_text(shakespeare: Path):
    content = shakespeare.read_bytes()
    assert hashlib.sha256(content).hexdigest() == DOWNLOADS["shakespeare"].sha256
    assert len(content) == DOWNLOADS["shakespeare"].size
