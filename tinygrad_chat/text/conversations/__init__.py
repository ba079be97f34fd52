"""Conversations: what they are made of, and how a model reads them.

conversation.py   messages, and their parts
template.py       a conversation as tokens, and which of them a model is trained to write
"""

from tinygrad_chat.text.conversations.conversation import CALL, RESULT, TEXT, Conversation, Message, Part
from tinygrad_chat.text.conversations.template import ChatTemplate, Rendered

__all__ = ["CALL", "RESULT", "TEXT", "ChatTemplate", "Conversation", "Message", "Part", "Rendered"]
