"""nanochat's scaling laws: derive every other setting from a depth, or from the available minutes.

The laws are karpathy/nanochat's (docs/upstream_analysis.md, chapter 6): a model trains on 12 tokens per scaling
parameter, in batches that grow with the number of tokens; learning rates depend on batch and width, weight decay on
batch and tokens. A user's choices are kept, and the rest is derived from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tinygrad_chat.config.groups import UNBOUNDED
from tinygrad_chat.models.nanochat import NANOCHAT, nanochat_shape
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.models.size import count_scaled_parameters, flops_per_token
from tinygrad_chat.option import specs_of

DEPTH = 4
CONTEXT = 256  # upstream's 2048 needs longer documents and more compute than a laptop's user may have
TOKENS_PER_PARAMETER = 12.0

REFERENCE_DEPTH, REFERENCE_BATCH, REFERENCE_WIDTH = 12, 2**19, 768  # upstream tuned its rates at these; batch in tokens
MAX_ROWS, FEWEST_ROWS = 32, 16  # rows of each micro-batch
LAST_RATE = 0.05
MAX_DECAY = 0.5  # largest share of a weight that decays per step; the law, made for wide models, can exceed 1

TRAINING: dict[str, Any] = {
    "optimizer": "muon",
    "lr_schedule": "nanochat",
    "warmup": 40,
    "warmdown": 0.65,
    "clip": 0.0,
}
"""The settings that are the same at every depth."""

SHARE_OF_PRODUCTS = 0.5
"""The share of the machine's matrix-product rate that a step of d4 reaches (bench/results/upstream.md); for choosing a
depth."""
DEEPEST = 32


def settings_of_depth(chosen: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """Return every setting that depth and vocabulary determine, given the `chosen` ones.

    >>> settings = settings_of_depth({"depth": 12, "context": 2048}, vocabulary=32768)
    >>> settings["steps"], settings["batch_size"] * 2048, settings["lr"], settings["weight_decay"]
    (2520, 524288, 0.02, 0.28)
    """
    depth = chosen.get("depth", chosen.get("layers", DEPTH))
    model = {**NANOCHAT, "context": CONTEXT, **nanochat_shape(depth), **_model_options(chosen)}
    if chosen.get("bias") or chosen.get("norm") == "layernorm":
        model["norm_gain"] = True  # biases and layernorm require it
    if chosen.get("positions", "rotary") != "rotary" and "qk_norm" not in chosen:
        model["qk_norm"] = None
    ratio = chosen.get("tokens_per_parameter", TOKENS_PER_PARAMETER)
    tokens = max(1, int(ratio * count_scaled_parameters(ModelOptions(**model), vocabulary)))
    own_shape = dict.fromkeys(("key_value_heads", "head_width", "feed_forward_width"))
    reference = ModelOptions(**{**model, **own_shape, **nanochat_shape(REFERENCE_DEPTH)})
    reference_tokens = max(1, int(ratio * count_scaled_parameters(reference, vocabulary)))

    best_batch = REFERENCE_BATCH * (tokens / reference_tokens) ** 0.383
    rows = chosen.get("batch_size") or max(1, 2 ** round(math.log2(best_batch)) // model["context"])
    batch = rows * model["context"]
    by_batch = math.sqrt(batch / REFERENCE_BATCH)
    by_width = math.sqrt(REFERENCE_WIDTH / model["width"])
    rate = chosen.get("lr", 0.02 * by_batch)
    rates = {
        "embedding_lr": 0.3 * by_width * by_batch,
        "head_lr": 0.008 * by_width * by_batch,
        "scalar_lr": 0.5 * by_batch,
    }
    return {
        **model,
        **TRAINING,
        "depth": depth,
        "tokens_per_parameter": ratio,
        "batch_size": rows,
        "grad_accumulation": next((rows // n for n in range(MAX_ROWS, FEWEST_ROWS - 1, -1) if rows % n == 0), 1),
        "steps": min(max(1, tokens // batch), UNBOUNDED),
        "lr": rate,
        **(rates if chosen.get("optimizer", "muon") == "muon" else {}),
        "weight_decay": min(0.28 * by_batch * reference_tokens / tokens, MAX_DECAY / rate),
        "min_lr": LAST_RATE * rate,
    }


def depth_for(chosen: Mapping[str, Any], vocabulary: int, product_rate: float) -> int:
    """Return the largest depth that a machine of `product_rate` operations per second can train in the chosen minutes.

    >>> [depth_for({"minutes": minutes}, 104, 300e9) for minutes in (0.1, 5, 60, 600)]
    [1, 2, 3, 4]
    """
    depth = 1
    while depth < DEEPEST:
        settings = settings_of_depth({**chosen, "depth": depth + 1}, vocabulary)
        tokens = settings["steps"] * settings["batch_size"] * settings["context"]
        operations = tokens * flops_per_token(ModelOptions(**_model_options(settings)), vocabulary)
        if operations / (SHARE_OF_PRODUCTS * product_rate) > 60 * chosen["minutes"]:
            break
        depth += 1
    return depth


def _model_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    names = specs_of(ModelOptions).keys()
    return {name: value for name, value in settings.items() if name in names}
