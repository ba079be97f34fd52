"""The settings of karpathy/nanochat (92d63d4), and the width and heads that follow from the depth.

docs/upstream_analysis.md, chapters 1 and 6, gives the source of every line. Standard library only.
"""

from __future__ import annotations

from typing import Any

NANOCHAT: dict[str, Any] = {
    "norm": "rmsnorm",
    "norm_gain": False,
    "norm_epsilon": 2.0**-23,
    "activation": "squared_relu",
    "positions": "rotary",
    "rotary_base": 100_000.0,
    "qk_norm": 1.2,
    "tied": False,
    "window_pattern": "SSSL",
    "soft_cap": 15.0,
    "embedding_norm": True,
    "smear": True,
    "residual_scales": True,
    "value_embeddings": True,
    "backout": True,
    "vocabulary_multiple": 64,
    "initialisation": "nanochat",
}
"""The ModelOptions that differ from mini-gpt."""

ASPECT_RATIO = 64  # channels of width per layer
HEAD_WIDTH = 128


def nanochat_shape(depth: int) -> dict[str, Any]:
    """Return the layers, width and heads of a model of that depth. The width grows with it, in whole heads.

    >>> nanochat_shape(12)
    {'layers': 12, 'width': 768, 'heads': 6}
    """
    heads = -(-depth * ASPECT_RATIO // HEAD_WIDTH)
    return {"layers": depth, "width": heads * HEAD_WIDTH, "heads": heads}
