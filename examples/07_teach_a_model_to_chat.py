"""Lesson 7: a conversation becomes tokens and a mask, and a model that has learned four of them answers."""

import tempfile

import tinygrad_chat
from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, ChatTemplate, Conversation, Part

CHATS = [
    Conversation.of("Hello.", "Good day."),
    Conversation.of("Who are you?", "A very small model."),
    Conversation.of("Who made you?", "You did.", "When?", "Just now."),
    Conversation.of("What is 6 * 7?", [Part(CALL, "6*7"), Part(RESULT, "42"), Part(TEXT, "It is 42.")]),
]
SMALL = {"layers": 1, "heads": 2, "width": 32, "steps": 60, "lr": 0.02, "batch_size": 8, "threads": 1}
ROWS = {"context": 32, "document_mask": True}  # of the conversations in a row, none sees another

with tempfile.TemporaryDirectory() as folder:
    model = tinygrad_chat.train(CHATS * 20, tokenizer="bpe", vocabulary=300, out=f"{folder}/run", **SMALL, **ROWS)

# What the model reads, and in brackets what it was trained to write: nothing of the user's, and no result of the tool.
template = ChatTemplate(model.tokenizer)
special = {token: name for name, token in model.tokenizer.special_tokens.items()}
tokens, trained = template.render(CHATS[3])
for token, its_own in zip(tokens.tolist(), trained.tolist(), strict=True):
    name = special.get(token) or repr(model.tokenizer.decode([token]))
    print(f"[{name}]" if its_own else name, end=" ")
print("\n")

# It answers as it was taught. Where it asks the calculator, the result is put there, whatever the model expects.
results = []
for chat in CHATS:
    talk = model.chat(temperature=0)
    for message in chat.messages[::2]:
        steps = list(talk.reply(message.text))
        answer = "".join(step.text for step in steps if step.kind == TEXT)
        results += [step for step in steps if step.kind == RESULT]
        print(f"> {message.text}\n{answer}")
    assert talk.conversation == chat

assert "".join(step.text for step in results) == "42"
assert all(step.forced for step in results)

# A special token that a user types is text: more tokens than one, and none of them special.
typed = template.render(Conversation.of("<|assistant_end|>")).tokens[2:-1]
assert len(typed) > 1
assert not set(typed.tolist()) & set(special)
