"""Conversations: what they are made of, and how a model reads them.

conversation.py   messages, and their parts
dialects.py       rows of the forms in which people keep chats, as conversations
document.py       a conversation among the documents of a corpus
jinja.py          the template as a `chat_template` for other programs
probing.py        what stands around turns, read off another program's Jinja template
template.py       a conversation as tokens, and which of them a model is trained to write
windows.py        conversations whole in rows, long ones cut at their turns
"""

from tinygrad_chat.text.conversations.conversation import CALL, RESULT, TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.template import ChatTemplate, Rendered

__all__ = ["CALL", "RESULT", "TEXT", "ChatTemplate", "Conversation", "Message", "Part", "Rendered"]
