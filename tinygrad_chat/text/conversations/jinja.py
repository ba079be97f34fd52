"""The template of chats as a Jinja `chat_template`, for programs that read a tokenizer.json.

What it renders is a text, in which the special tokens are written by their names: encoded with these it has the tokens
of `ChatTemplate.render`. Two things a text cannot say: that a user has typed such a name, which `render` keeps as text
and this one turns into control; and that one part of a message ends and another of text begins, which are encoded
apart here and together there.
"""

from __future__ import annotations

from tinygrad_chat.text.conversations.conversation import ASSISTANT, CALL, RESULT, SYSTEM, USER
from tinygrad_chat.text.conversations.template import AROUND
from tinygrad_chat.text.tokenizers.tokenizer import BOS


def chat_template() -> str:
    """Return the template: of `messages` as `Conversation.to_json` has them, and `add_generation_prompt`."""
    parts = "".join(
        f"{{% {word} part.type == '{kind}' %}}{AROUND[kind][0]}{{{{ part.text }}}}{AROUND[kind][1]}"
        for word, kind in (("if", CALL), ("elif", RESULT))
    )
    return (
        f"{BOS}{{% set before = namespace(text='') %}}{{% for message in messages %}}"
        f"{{% if message.role == '{SYSTEM}' %}}{{% set before.text = message.content + '\\n\\n' %}}"
        f"{{% elif message.role == '{USER}' %}}"
        f"{AROUND[USER][0]}{{{{ before.text + message.content }}}}{AROUND[USER][1]}{{% set before.text = '' %}}"
        f"{{% else %}}{AROUND[ASSISTANT][0]}"
        "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
        f"{parts}{{% else %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
        f"{AROUND[ASSISTANT][1]}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{AROUND[ASSISTANT][0]}{{% endif %}}"
    )
