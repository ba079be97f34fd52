"""Our chat template as a Jinja `chat_template`, for programs that read a tokenizer.json.

It renders a text in which special tokens are written by name: encoded with these, it has the tokens of
`ChatTemplate.render`. Two things a text cannot express: that a user has typed such a name, which `render` keeps as text
and other programs turn into a special token; and where one text part of a message ends and the next begins, which
`render` encodes apart and other programs together.
"""

from __future__ import annotations

import json

from tinygrad_chat.text.conversations.conversation import ASSISTANT, CALL, RESULT, SYSTEM, USER
from tinygrad_chat.text.conversations.template import AROUND
from tinygrad_chat.text.tokenizers.turns import NANOCHAT, Turns

PARTS = "".join(
    f"{{% {word} part.type == '{kind}' %}}{AROUND[kind][0]}{{{{ part.text }}}}{AROUND[kind][1]}"
    for word, kind in (("if", CALL), ("elif", RESULT))
)
CONTENT_OR_PARTS = (
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    f"{PARTS}{{% else %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
)
"""Renders an assistant's message, which may have tool calls."""


def chat_template(turns: Turns = NANOCHAT) -> str:
    """Return the template; it takes `messages` as in `Conversation.to_json`, and `add_generation_prompt`."""
    said = {role: _content(role, turns) for role in (SYSTEM, USER, ASSISTANT)}
    if turns == NANOCHAT:
        said[ASSISTANT] = CONTENT_OR_PARTS
    before_question = (
        f"{{% if loop.first %}}{_text(turns.first)}{{% elif loop.previtem.role == '{SYSTEM}' %}}"
        f"{_text(turns.behind_system)}{{% else %}}{_text(turns.question)}{{% endif %}}"
    )
    return (
        "{% for message in messages %}"
        f"{{% if message.role == '{SYSTEM}' %}}{_text(turns.system)}{said[SYSTEM]}"
        f"{{% elif message.role == '{USER}' %}}{before_question}{said[USER]}"
        f"{{% else %}}{_text(turns.answer)}{said[ASSISTANT]}{{% endif %}}"
        "{% endfor %}"
        f"{{% if messages[-1].role == '{USER}' %}}{_text(turns.asked)}"
        f"{{% if add_generation_prompt %}}{_text(turns.prompt)}{{% endif %}}"
        f"{{% else %}}{_text(turns.end)}{{% endif %}}"
    )


def _text(text: str) -> str:
    """Return Jinja that renders a text: as a literal, so that no line end is taken for the template's own."""
    return f"{{{{ {json.dumps(text)} }}}}" if text else ""


def _content(role: str, turns: Turns) -> str:
    return f"{{{{ message.content{' | trim' if role in turns.stripped else ''} }}}}"
