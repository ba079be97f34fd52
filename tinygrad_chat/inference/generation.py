"""Text from a model, token after token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_chat.backend import to_host
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.options import SamplingOptions, expect_sampling
from tinygrad_chat.inference.sampler import sample_token
from tinygrad_chat.models.protocol import LanguageModel
from tinygrad_chat.seeds import rng
from tinygrad_chat.text.tokenizers import Tokenizer


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    random: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    cached: bool = True,
    not_first: int | None = None,
) -> Iterator[int]:
    """Yield up to `max_new_tokens` tokens that go on from the tokens of `prompt`, at least one and at most the context.

    Once the context is full, the model goes on from its later half, so that a full context need not be read again for
    every token. The key/value cache changes the speed and nothing else. `not_first` is a token not to begin with.
    Raises ConfigError for an option out of range, UsageError for a prompt that the model cannot read.
    """
    choice = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    expect_sampling(max_new_tokens=max_new_tokens, **choice)
    if not 1 <= len(prompt) <= model.context:
        raise UsageError(
            f"generate: expected a prompt of 1 to {model.context} tokens (the model's context), received {len(prompt)}"
        )
    if not 0 <= min(prompt) <= max(prompt) < model.vocabulary:
        received = f"{min(prompt)} to {max(prompt)}"
        raise UsageError(f"generate: expected tokens from 0 to {model.vocabulary - 1}, received {received}")
    cache = model.new_cache(1) if cached else None
    return _tokens(model, list(prompt), max_new_tokens, random, choice, cache, not_first)


def _tokens(
    model: LanguageModel,
    window: list[int],  # what the model looks at
    count: int,
    random: np.random.Generator,
    choice: Mapping[str, Any],
    cache: Any,
    not_first: int | None,
) -> Iterator[int]:
    unread = window  # what of it the cache does not hold yet
    for position in range(count):
        with np.errstate(all="ignore"):  # what overflows is found where a token is drawn
            logits = to_host(model.next_token_logits(np.array([unread if cache else window]), cache)[0])
        if position == 0 and not_first is not None:
            logits = np.where(np.arange(len(logits)) == not_first, -np.inf, logits)
        token = sample_token(logits, random, **choice)
        yield token
        window.append(token)
        unread = [token]
        if len(window) > model.context:
            unread = window = window[-max(model.context // 2, 1) :]
            if cache:
                cache.clear()


def prompt_tokens(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, *, say: Callable[[str], None] = lambda line: None
) -> list[int]:
    """Return the tokens to start from: BOS, and those of the prompt.

    Of a prompt longer than the model's context the last ones stay, and `say` is told. Raises VocabularyError for an
    unknown character.
    """
    tokens = tokenizer.encode(prompt).tolist()
    if len(tokens) > model.context:
        say(f"the prompt has {len(tokens):,} tokens; the model goes on from the last {model.context:,}, its context")
    return [tokenizer.bos, *tokens] if len(tokens) < model.context else tokens[-model.context :]


def sample_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    options: SamplingOptions,
    *,
    cached: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Iterator[str]]:
    """Yield each sample as an iterator of pieces of text: the prompt first, then what is drawn, as it is drawn.

    A sample ends after `max_new_tokens`, or where the model begins a new document. `say` is told of a prompt longer
    than the context, of which the end counts.
    """
    start = prompt_tokens(model, tokenizer, options.prompt, say=say)

    def new_tokens(number: int) -> Iterator[int]:
        tokens = generate(
            model,
            start,
            max_new_tokens=options.max_new_tokens,
            random=rng(options.seed, "sampling", number),
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            cached=cached,
            not_first=None if options.prompt else tokenizer.bos,  # no text is empty
        )
        for token in tokens:
            if token == tokenizer.bos:
                return
            yield token

    def pieces(number: int) -> Iterator[str]:
        if options.prompt:
            yield options.prompt
        yield from tokenizer.decode_stream(new_tokens(number))

    return (pieces(number) for number in range(options.num_samples))
