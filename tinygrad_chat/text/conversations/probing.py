"""Converts an untrusted `chat_template`: rendered with marker words, it shows the texts that it puts around messages.

A Jinja template is a program, and an untrusted one may be malicious. So it runs once, in Jinja's sandbox, in a separate
process with limited time and memory, and only texts are kept. A template that does more than put texts around messages
is refused, as texts could not express it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypedDict

from tinygrad_chat.errors import BackendError, FormatError
from tinygrad_chat.formatting import as_clause, short_repr
from tinygrad_chat.schema import parse_json
from tinygrad_chat.text.conversations.conversation import ASSISTANT, SYSTEM, USER
from tinygrad_chat.text.tokenizers.turns import LONGEST, Turns

SECONDS = 10  # of CPU time
PATIENCE = 120  # seconds of wall-clock time: a machine may be busy, and some cannot limit CPU time
MEMORY = 512 << 20  # bytes
LONGEST_TEMPLATE = 1 << 18  # characters
LIBRARIES = ("jinja2", "markupsafe")

RENDERER = """
import json, sys
from datetime import datetime
seconds, memory, longest = map(int, sys.argv[1:4])
sys.path += sys.argv[4:]
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
try:
    import resource
    for name, most in (("CPU", seconds), ("AS", memory), ("FSIZE", 0), ("CORE", 0), ("NPROC", 0)):
        if hasattr(resource, "RLIMIT_" + name):
            resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
except ImportError:
    pass

class Generation(Extension):
    tags = {"generation"}
    def parse(self, parser):
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)

def refuse(message):
    raise ValueError(message)

def as_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

asked = json.load(sys.stdin)
extensions = [Generation, "jinja2.ext.loopcontrols"]
environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
environment.filters["tojson"] = as_json
environment.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
found = []
try:
    template = environment.from_string(asked["template"])
    for messages, answered in asked["conversations"]:
        try:
            text = template.render(messages=messages, add_generation_prompt=answered, tools=None, **asked["names"])
            found.append({"text": text[:longest]})
        except ValueError as error:
            found.append({"error": str(error)[:200]})
    print(json.dumps(found))
except BaseException as error:
    print(json.dumps([{"error": (type(error).__name__ + ": " + str(error))[:200]}]))
"""
"""What the process runs, with the helpers that templates of `transformers` may call."""

SAID: tuple[str, ...] = ("zqsystemqz", "zqquestionqz", "zqanswerqz", "zqfurtherqz", "zqreplyqz", "zqlastqz")
"""Marker words, in no real template: a system message's, then three questions' and the answers' between them."""


class _Rendered(TypedDict, total=False):
    text: str
    error: str


def turns_of(template: str, names: Mapping[str, str], special: Collection[str]) -> Turns:
    """Return the texts that a Jinja template puts around messages.

    `names` are the special tokens that it may refer to, such as bos_token; one of the `special` ones must be in the
    text that ends an answer. Raises BackendError without the extra `templates`, FormatError for a template that fails,
    takes too long or too much memory, or does more.
    """
    system, *turns = SAID
    short, middle, long = (_messages(turns[:count]) for count in (1, 3, 5))
    blank = [{**message, "content": f" \n{message['content']} \n"} for message in middle]
    with_system = [{"role": SYSTEM, "content": system}]
    asked = [(short, False), (short, True), (middle, True), (long, True), (_messages(turns[:2]), False)]
    asked += [(with_system + short, True), (with_system + long, True), (blank, True)]
    asked += [([{"role": SYSTEM, "content": f" \n{system} \n"}, *short], True)]
    texts = _render(template, names, asked)
    if any(word in template for word in SAID):
        raise _more()
    first, asked_text = _around(texts[0], turns[:1])
    behind = _around(texts[1], turns[:1])[1]
    _, answer, question, _ = _around(texts[2], turns[:3])
    end = _around(texts[4], turns[:2])[-1]
    if texts[5] is not None and system in texts[5]:
        before, behind_system, _ = _around(texts[5], [system, turns[0]])
    else:  # no place for a system message: the first question begins with it
        before, behind_system = first, "\n\n"
    found = Turns(
        first=first,
        system=before,
        behind_system=behind_system,
        answer=answer,
        question=question,
        end=end,
        asked=asked_text,
        prompt=behind.removeprefix(asked_text),
        stripped=_stripped(texts[7], texts[8]),
    )
    between = [answer, question] * 2
    expected = "".join(part for pair in zip(turns, [*between, behind], strict=True) for part in pair)
    keeps_to_it = behind.startswith(asked_text) and texts[3] == first + expected
    if texts[5] is not None and system in texts[5]:
        keeps_to_it = keeps_to_it and texts[6] == before + system + behind_system + expected
    if not keeps_to_it or not any(name and name in end for name in special):
        raise _more()
    return found


def _messages(said: list[str]) -> list[dict[str, str]]:
    return [{"role": (USER, ASSISTANT)[at % 2], "content": text} for at, text in enumerate(said)]


def _around(text: str | None, words: list[str]) -> list[str]:
    """Return the texts before, between and after words in a text, each of which must occur there once."""
    if text is None or any(text.count(word) != 1 for word in words):
        raise _more()
    parts = []
    for word in words:
        before, _, text = text.partition(word)
        parts.append(before)
    return [*parts, text]


def _stripped(middle: str | None, with_system: str | None) -> tuple[str, ...]:
    """Return the roles whose messages lose the blanks around them, given texts with blanks around each message."""
    system, _, answer, further = SAID[:4]
    roles = {SYSTEM: (with_system, system), USER: (middle, further), ASSISTANT: (middle, answer)}
    return tuple(role for role, (text, word) in roles.items() if text and f" \n{word} \n" not in text and word in text)


def _render(
    template: str, names: Mapping[str, str], asked: list[tuple[list[dict[str, str]], bool]]
) -> list[str | None]:
    """Render each of the conversations with the template; None for one that it refuses."""
    if len(template) > LONGEST_TEMPLATE:
        received = f"{len(template):,}"
        raise FormatError(f"chat_template: expected at most {LONGEST_TEMPLATE:,} characters, received {received}")
    places = [importlib.util.find_spec(name) for name in LIBRARIES]
    if None in places:
        raise BackendError("chat_template: jinja2 is not installed; run: pip install 'tinygrad-chat[templates]'")
    folders = dict.fromkeys(str(Path(str(place.origin)).parent.parent) for place in places if place)
    limits = [str(each) for each in (SECONDS, MEMORY, LONGEST)]
    told = json.dumps({"template": template, "names": dict(names), "conversations": asked})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", RENDERER, *limits, *folders],
            input=told.encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FormatError(f"chat_template: was not done within {PATIENCE} seconds") from None
    if done.returncode or not done.stdout:
        raise FormatError(f"chat_template: took more than {SECONDS} seconds or {MEMORY >> 20} MiB")
    found = parse_json(done.stdout, list[_Rendered], source="chat_template")
    if len(found) != len(asked):
        raise FormatError(f"chat_template: {as_clause(short_repr(found[0].get('error', '')))}")
    return [each.get("text") for each in found]


def _more() -> FormatError:
    return FormatError("chat_template: does more than put texts around messages, which is not supported")
