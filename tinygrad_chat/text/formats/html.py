"""The text of an HTML page as a reader sees it: no tags, no scripts, its paragraphs as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

_UNSEEN = {"script", "style", "template", "noscript", "svg", "iframe", "object"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "title"}
_LINES = {"br", "hr", "div", "li", "dt", "dd", "tr", "section", "article", "header", "footer", "nav", "main", "aside"}
_LINES |= {"option", "figure", "figcaption", "form", "address", "details", "summary", "caption", "body", "head"}


def page_text(text: Iterable[str]) -> Iterator[str]:
    r"""Yield the text of a page, in pieces.

    >>> "".join(page_text(["<h1>A &amp; B</h1><script>x()</sc", "ript><p>one\n two<br>three</p>"]))
    'A & B\n\none two\nthree\n'
    """
    page = _Page()
    for piece in text:
        page.feed(piece)
        yield page.take()
    page.close()
    yield page.take() + ("\n" if page.begun else "")


class _Page(HTMLParser):
    """Collects a page's text; the white space between two words is decided when the second arrives."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.begun = False
        self._text: list[str] = []
        self._gap = ""
        self._unseen = self._as_it_stands = 0

    def take(self) -> str:
        """Return the text since the last call."""
        text = "".join(self._text)
        self._text.clear()
        return text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a line if the tag does."""
        self._unseen += tag in _UNSEEN
        self._as_it_stands += tag == "pre"
        self._end_line(tag)
        if tag in ("td", "th"):
            self._widen("\t")

    def handle_endtag(self, tag: str) -> None:
        """End a line if the tag does."""
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        self._as_it_stands = max(0, self._as_it_stands - (tag == "pre"))
        self._end_line(tag)

    def handle_data(self, data: str) -> None:
        """Add words with one space between them, or verbatim within <pre>."""
        if self._unseen or not data:
            return
        if self._as_it_stands:
            self._add(data)
            return
        if data[0].isspace():
            self._widen(" ")
        words = " ".join(data.split())
        if words:
            self._add(words)
            if data[-1].isspace():
                self._widen(" ")

    def _end_line(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._widen("\n\n")
        elif tag in _LINES:
            self._widen("\n")

    def _widen(self, gap: str) -> None:
        self._gap = max(self._gap, gap, key=["", " ", "\t", "\n", "\n\n"].index)

    def _add(self, text: str) -> None:
        if self.begun:
            self._text.append(self._gap)
        self._text.append(text)
        self._gap, self.begun = "", True
