"""Which parameters AdamW moves beside Muon, and how: nanochat's groups (Karpathy, MIT), docs/upstream_analysis.md 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Group:
    """Parameters that AdamW moves alike. Their learning rate is `scale` times the optimiser's, which is Muon's."""

    name: str
    parameters: tuple[str, ...]
    scale: float
    betas: tuple[float, float]
    weight_decay: float


def adamw_groups(
    shapes: Mapping[str, tuple[int, ...]], *, lr: float, embedding_lr: float, head_lr: float, scalar_lr: float
) -> list[Group]:
    """Sort a model's parameters, given by name and shape, into AdamW's groups; what is in none is Muon's.

    `lr` is the optimiser's highest learning rate, the others those of the groups, all in the same unit: the model's
    width and the batch are the caller's to scale by. Groups without parameters are left out.

    >>> shapes = {"token_embedding.weight": (64, 8), "blocks.0.attention.query.weight": (8, 8), "head.weight": (64, 8)}
    >>> groups = adamw_groups(shapes, lr=0.02, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    >>> [(group.name, group.parameters, round(group.scale, 3)) for group in groups]
    [('head', ('head.weight',), 0.4), ('embedding', ('token_embedding.weight',), 15.0)]
    """
    embeddings = ("token_embedding.weight", "position_embedding.weight")
    smear = ("smear_gate.weight", "smear_scale", "backout_scale")
    vectors = tuple(name for name, shape in shapes.items() if len(shape) < 2)
    table = [
        # group, its parameters, learning rate, betas, decay; a parameter belongs to the first that names it
        ("head", ("head.weight",), head_lr, (0.8, 0.96), 0.01),
        ("embedding", embeddings, embedding_lr, (0.8, 0.995), 0.001),
        ("value embeddings", ("value_embeddings.*",), 0.5 * embedding_lr, (0.8, 0.995), 0.01),
        ("residual scales", ("residual_scales",), 0.01 * scalar_lr, (0.8, 0.95), 0.05),
        ("embedding scales", ("embedding_scales",), scalar_lr, (0.96, 0.95), 0.0),
        ("smear", smear, 0.2, (0.8, 0.95), 0.0),  # whatever the other rates
        ("vectors", vectors, 0.01 * scalar_lr, (0.8, 0.95), 0.0),  # gains and biases, which nanochat has none of
    ]
    groups, left = [], dict.fromkeys(shapes)
    for name, patterns, rate, betas, decay in table:
        found = tuple(each for each in left if any(fnmatchcase(each, pattern) for pattern in patterns))
        left = dict.fromkeys(each for each in left if each not in found)
        if found:
            groups.append(Group(name, found, rate / lr, betas, decay))
    return groups
