"""Lesson 4: train a mini-gpt from Python in 15 lines."""

import numpy as np

from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.inference.generation import generate
from tinygrad_chat.optim import AdamW, clip_gradient
from tinygrad_chat.text.batches import random_batch
from tinygrad_chat.text.tokenizers import CharacterTokenizer

text = "the cat sat on the mat. the dog sat on the log. the frog sat on the cat. " * 20
tokenizer, random = CharacterTokenizer(text), np.random.default_rng(0)
tokens = tokenizer.encode(text)
model = GPT(tokenizer.size, ModelOptions(layers=2, heads=4, width=32, context=32))
optimizer = AdamW(model.parameters())
for step in range(151):
    inputs, targets = random_batch(tokens, batch_size=8, context=32, random=random)
    model.parameters().zero_gradient()
    loss = model.loss(inputs, targets)
    loss.backward()
    clip_gradient(model.parameters(), 1.0)
    optimizer.step(learning_rate=1e-2 * (1 - step / 151))
    if step % 50 == 0:
        print(f"step {step:3} loss {loss.item():.3f}")
print("the " + tokenizer.decode(generate(model, tokenizer.encode("the ").tolist(), max_new_tokens=80, random=random)))

assert model.loss(tokens[None, :32], tokens[None, 1:33]).item() < 0.5
