"""Give our tokenizer another model's chat template, and the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinygrad_chat.errors import BackendError, FormatError
from tinygrad_chat.text.conversations import ChatTemplate
from tinygrad_chat.text.conversations.probing import turns_of
from tinygrad_chat.text.tokenizers import BPETokenizer

Say = Callable[[str], None]


def with_chat_template(
    tokenizer: BPETokenizer, template: Any, *, names: Mapping[str, str], ends: Iterable[Any], say: Say
) -> BPETokenizer:
    """Return a tokenizer with the Jinja `template`, if there is one, and with the token IDs `ends` as end tokens.

    `names` are those of the special tokens that templates refer to. `say` reports a template that cannot be used; the
    model can then continue texts, but not chat.
    """
    name_of = {number: name for name, number in tokenizer.special_tokens.items()}
    known = [name_of[number] for number in ends if type(number) is int and number in name_of]
    tokenizer = tokenizer.for_chats(None, list(dict.fromkeys(known)))
    if not isinstance(template, str) or not template:
        return tokenizer
    try:
        found = tokenizer.for_chats(turns_of(template, names, tokenizer.special_tokens), tokenizer.end_names)
        _ = ChatTemplate(found).stop_tokens
    except (FormatError, BackendError) as error:
        say(f"{error}; the model continues texts, and cannot chat")
        return tokenizer
    return found


def can_chat(tokenizer: Any) -> bool:
    """Return whether a model's tokenizer has a chat template."""
    return isinstance(tokenizer, BPETokenizer) and tokenizer.turns is not None


def named_template(templates: Any) -> Any:
    """Return the template to use: of several, a list of objects, the one named "default"."""
    if not isinstance(templates, list):
        return templates
    found = [each for each in templates if isinstance(each, dict) and each.get("name") == "default"]
    return found[0].get("template") if found else None
