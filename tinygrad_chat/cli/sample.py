"""`tgc sample`."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer

from tinygrad_chat.cli.flags import Raw, flags_of
from tinygrad_chat.cli.prompt import read_prompt
from tinygrad_chat.cli.ranks import RankLogs, RanksOption, RankTimeout, expect_all_ranks, several_ranks
from tinygrad_chat.cli.streams import say, stream_of_texts
from tinygrad_chat.inference.options import GenerationOptions, InferenceOptions, SamplingOptions
from tinygrad_chat.option import specs_of

SEEDS = 10**6  # to draw from: six digits are quick to type
DEFAULTS = {
    "mode": "its own",
    "seed": "a different one each time",
    "temperature": f"{GenerationOptions.temperature}, or an imported model's own",
}


@flags_of(InferenceOptions, SamplingOptions, short=False, defaults=DEFAULTS)
def sample(
    call: typer.Context,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="a checkpoint's or a run's folder (default: the newest run)", rich_help_panel="Model"),
    ] = None,
    raw: Raw = False,
    ranks: RanksOption = None,
    rank_timeout: RankTimeout = 300,
    rank_logs: RankLogs = None,
    **settings: Any,
) -> None:
    """Write text with a trained model, token by token as it comes."""
    compute = {name: settings.pop(name) for name in specs_of(InferenceOptions) if name in settings}
    InferenceOptions(**compute)  # raises for invalid values
    draws = "seed" not in settings
    settings.setdefault("seed", secrets.randbelow(SEEDS))
    SamplingOptions(**settings)  # likewise, before waiting for a prompt

    from tinygrad_chat.files import user_path
    from tinygrad_chat.inference.distributed import SharedModel
    from tinygrad_chat.inference.generation import sample_texts
    from tinygrad_chat.inference.load import load_model, quick_kernels
    from tinygrad_chat.interchange.opening import open_model
    from tinygrad_chat.parallel import use_threads

    with several_ranks(call, ranks, rank_timeout, rank_logs, SharedModel.take_part) as leading:
        stream = stream_of_texts(raw=raw)
        shared = leading and SharedModel(leading.communicator)
        settings["prompt"] = read_prompt(settings.get("prompt"), say=say)
        saved = open_model(user_path(checkpoint) if checkpoint else None, say=say)
        options = SamplingOptions(**{**saved.sampling.settings(), **settings})
        threads = compute.pop("threads", None)
        shared.ask("use_threads", threads) if shared else use_threads(threads)
        if compute.get("kernels", "auto") == "auto":
            chosen = {name: compute[name] for name in ("backend", "weights") if name in compute}
            compute["kernels"] = quick_kernels(options.max_new_tokens * options.num_samples, **chosen)
        model = load_model(saved, **compute)
        if shared:
            shared.share(saved, model, **compute)
            texts = shared.texts(options, say=say)
        else:
            texts = sample_texts(model, saved.tokenizer, options, say=say)
        if draws and options.temperature > 0:
            say(f"seed {options.seed}; the same text again with --seed {options.seed}")
        for number, pieces in enumerate(texts):
            if number:
                print(f"\n--- sample {number + 1} ---")
            for piece in pieces:
                expect_all_ranks(leading)
                stream.write(piece)
                stream.flush()
            print(flush=True)
