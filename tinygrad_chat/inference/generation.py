"""Generate tokens or text that continue a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions, SamplingOptions
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
) -> Iterator[int]:
    """Yield up to `max_new_tokens` tokens that continue `prompt`, which has at least one token and at most the context.

    When the context is full, generation continues from its later half, so that a full context is not read again for
    every token. The key/value cache affects only the speed. Raises ConfigError for an option out of range, UsageError
    for a prompt that the model cannot read.
    """
    engine = Engine(model, None, rows=1, prefix_bytes=0, cached=cached)
    options = GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    request = engine.submit(prompt, options, slide_context=True, random=random)
    return (step.token for step in engine.stream(request))


def prompt_tokens(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, *, say: Callable[[str], None] = lambda line: None
) -> list[int]:
    """Return BOS, if the context has room for it, and the tokens of the prompt.

    A prompt longer than the model's context is cut to its last tokens, and `say` is told. Raises VocabularyError for an
    unknown character.
    """
    tokens = tokenizer.encode(prompt).tolist()
    if len(tokens) > model.context:
        say(f"the prompt has {len(tokens):,} tokens; the model continues from the last {model.context:,}, its context")
    return [tokenizer.bos, *tokens] if len(tokens) < model.context else tokens[-model.context :]


def sample_texts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    options: SamplingOptions,
    *,
    numbers: Iterable[int] | None = None,
    cached: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Iterator[str]]:
    """Yield each sample as an iterator of pieces of text: the prompt first, then the new text as it is drawn.

    A sample ends after `max_new_tokens`, or when the model begins a new document. `numbers` selects the samples to
    draw, counted from 0; by default all. `say` is told if the prompt is longer than the context: only its end is used.
    """
    start = prompt_tokens(model, tokenizer, options.prompt, say=say)
    engine = Engine(model, tokenizer, rows=1, prefix_bytes=0, cached=cached)
    first = () if options.prompt else tokenizer.stop_tokens  # not the first token, so that no text is empty

    def pieces(number: int) -> Iterator[str]:
        if options.prompt:
            yield options.prompt
        random = rng(options.seed, "sampling", number)
        ends = tokenizer.stop_tokens
        request = engine.submit(
            start, options, stop_tokens=ends, forbidden_first=first, slide_context=True, random=random
        )
        yield from filter(None, (step.text for step in engine.stream(request)))
        if request.text.rest:
            yield request.text.rest

    return (pieces(number) for number in (range(options.num_samples) if numbers is None else numbers))
