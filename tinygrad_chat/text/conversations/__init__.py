"""Conversations: what they are made of, and how a model reads them.

conversation.py   messages, and their parts
dialects.py       reads the formats in which chats are stored
document.py       a conversation as a document of a corpus
jinja.py          our template as a `chat_template` for other programs
probing.py        the texts around turns, found by rendering another program's Jinja template
template.py       a conversation as tokens, and which of them a model is trained to write
windows.py        packs whole conversations into rows, and cuts long ones at their turns
"""

from tinygrad_chat.text.conversations.conversation import CALL, RESULT, TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.template import ChatTemplate, Rendered

__all__ = ["CALL", "RESULT", "TEXT", "ChatTemplate", "Conversation", "Message", "Part", "Rendered"]
