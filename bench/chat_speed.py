"""The engine's speed in chats: tokens per second of 1, 4 and 16 conversations at once, and the time to a first token.

A model of the small chat's size (4 layers, 128 channels, a context of 512) with random weights, in float32. Each
conversation begins with a prompt of its own of 64 tokens and is answered with 64. The first token of a second turn
comes after 384 tokens that were read and 16 that are new, with the keys and values of the first turn and without.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from bench.record import write_result
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.inference.engine import PREFIX_BYTES, Engine
from tinygrad_chat.inference.options import GenerationOptions

NAME = "chat_speed"
VOCABULARY = 4096
OPTIONS = ModelOptions(layers=4, heads=4, width=128, context=512, positions="rotary", norm="rmsnorm")
AT_ONCE = (1, 4, 16)
PROMPT, NEW = 64, 64
READ, UNREAD = 384, 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="times that each is measured; the median counts")


def measure(arguments: argparse.Namespace) -> None:
    model = GPT(VOCABULARY, OPTIONS)
    speeds = {
        count: statistics.median(tokens_per_second(model, count) for _ in range(arguments.rounds)) for count in AT_ONCE
    }
    for count, speed in speeds.items():
        print(f"{count:>3} at once {speed:>10,.0f} tokens/s {speed / speeds[1]:>6.2f} times one")
    first = {
        name: statistics.median(seconds_to_first_token(model, kept) for _ in range(arguments.rounds))
        for name, kept in (("with the first turn kept", PREFIX_BYTES), ("without", 0))
    }
    for name, seconds in first.items():
        print(f"first token {name:<25} {1000 * seconds:>8.1f} ms")
    measured = {
        "rounds": arguments.rounds,
        "tokens_per_second": {str(count): speed for count, speed in speeds.items()},
        "seconds_to_first_token": first,
    }
    print(f"written: {write_result(NAME, f'python -m bench {NAME} --rounds {arguments.rounds}', measured)}")


def tokens_per_second(model: GPT, count: int) -> float:
    """Return the tokens of all conversations together, after the first of each."""
    engine = Engine(model, None, rows=count, prefix_bytes=0)
    prompts = np.random.default_rng(0).integers(VOCABULARY, size=(count, PROMPT)).tolist()
    requests = [engine.submit(prompt, GenerationOptions(max_new_tokens=NEW)) for prompt in prompts]
    engine.step()
    began = time.perf_counter()
    while requests[0].finish_reason is None:
        engine.step()
    return count * (NEW - 1) / (time.perf_counter() - began)


def seconds_to_first_token(model: GPT, prefix_bytes: int) -> float:
    """Return how long the first token of a second turn takes."""
    engine = Engine(model, None, prefix_bytes=prefix_bytes)
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=READ + UNREAD).tolist()
    options = GenerationOptions(max_new_tokens=1)
    engine.submit(tokens[:READ], options)
    engine.step()
    began = time.perf_counter()
    engine.submit(tokens, options)
    engine.step()
    return time.perf_counter() - began
