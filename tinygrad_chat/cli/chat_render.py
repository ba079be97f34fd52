"""`tgc chat render`: how a model reads conversations, and which tokens it is trained to write."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tinygrad_chat.cli.streams import say
from tinygrad_chat.errors import DataError
from tinygrad_chat.formatting import count

if TYPE_CHECKING:
    from tinygrad_chat.text.conversations import ChatTemplate, Conversation

TRAINED, READ = "bold green", "dim"


def render(
    data: Annotated[str, typer.Argument(metavar="FILE", help="conversations, as --data of tgc train takes them")],
    tokenizer: Annotated[
        str, typer.Option(help="bpe, learned from the file, or the path of a tokenizer.json or a run")
    ] = "bpe",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="conversations to show")] = 3,
) -> None:
    """Show conversations as tokens. Those that a model is trained to write are green, or in +[brackets]+ in a pipe."""
    from rich.text import Text

    from tinygrad_chat.cli.table import open_console
    from tinygrad_chat.config.record import SPECS
    from tinygrad_chat.text.conversations import ChatTemplate
    from tinygrad_chat.text.conversations.document import ChatDocument
    from tinygrad_chat.text.corpora import open_corpus, settle_source
    from tinygrad_chat.text.data import expect_chat_tokens
    from tinygrad_chat.training.tokens import tokenizer_called

    corpus = open_corpus(settle_source(data))
    if not corpus.conversations:
        raise DataError(f'--data {data}: holds no conversations; expected rows such as {{"messages": [...]}}')
    found = tokenizer_called(tokenizer, int(SPECS["vocabulary"].default), lambda: [corpus])
    template = ChatTemplate(expect_chat_tokens(corpus, None if isinstance(found, str) else found))
    console = open_console(sys.stdout)
    coloured = bool(console.color_system) and not console.no_color
    conversations = tokens = trained = unanswered = 0
    for document in itertools.islice(corpus.documents(), limit):
        assert isinstance(document, ChatDocument)
        line = Text()
        for shown, written, number in _runs(template, document.conversation):
            line.append(shown if coloured or not written else f"+[{shown}]+", TRAINED if written else READ)
            tokens += number
            trained += number * written
        console.print(line, soft_wrap=True, highlight=False)
        conversations += 1
        unanswered += document.unanswered is not None
    share = trained / max(1, tokens)
    left_out = f"; left out {count(unanswered, 'question')} that nobody has answered" if unanswered else ""
    shown = f"{count(conversations, 'conversation')}, {count(tokens, 'token')}"
    say(f"{shown}, {trained:,} of them trained on ({share:.0%}){left_out}")


def _runs(template: ChatTemplate, conversation: Conversation) -> Iterator[tuple[str, bool, int]]:
    """Yield runs of tokens as text (special tokens by name), whether they are trained on, and how many there are."""
    tokenizer = template.tokenizer
    names = {token: name for name, token in tokenizer.special_tokens.items()}
    tokens, trained = template.render(conversation)
    for written, group in itertools.groupby(
        zip(tokens.tolist(), trained.tolist(), strict=True), lambda each: (each[1], each[0] in names)
    ):
        run = [token for token, _ in group]
        text = "".join(names[token] for token in run) if written[1] else tokenizer.decode(run)
        yield (text if written[1] else json.dumps(text, ensure_ascii=False)[1:-1]), written[0], len(run)
