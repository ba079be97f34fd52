"""The measured GPT in JAX: a whole training step as one compiled function, with donated weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from bench.configurations import BETAS, CLIP, LEARNING_RATE, WEIGHT_DECAY, Configuration
from bench.peers.weights import renamed

EPSILON_OF_NORM = 1e-5
EPSILON_OF_ADAM = 1e-8
Weights = dict[str, jax.Array]


def training_step(
    configuration: Configuration, weights: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return one training step on tokens and targets (B, T) -> loss."""
    jax.config.update("jax_default_matmul_precision", "highest")
    heads, layers = configuration.options.heads, configuration.options.layers
    state: dict[str, Weights] = {"weights": {name: jnp.array(array) for name, array in renamed(weights).items()}}
    state |= {average: jax.tree.map(jnp.zeros_like, state["weights"]) for average in ("mean", "square")}
    steps = 0

    def loss_of(weights: Weights, tokens: jax.Array, targets: jax.Array) -> jax.Array:
        return _loss(weights, tokens, targets, heads, layers)

    def update(
        state: dict[str, Weights], number: jax.Array, tokens: jax.Array, targets: jax.Array
    ) -> tuple[dict[str, Weights], jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(state["weights"], tokens, targets)
        return _adamw(state, _clipped(gradient), number), loss

    compiled = jax.jit(update, donate_argnums=0)

    def step(tokens: np.ndarray, targets: np.ndarray) -> float:
        nonlocal state, steps
        steps += 1
        state, loss = compiled(state, jnp.float32(steps), tokens.astype(np.int32), targets.astype(np.int32))
        return float(jax.block_until_ready((state, loss))[1])

    return step


def _loss(weights: Weights, tokens: jax.Array, targets: jax.Array, heads: int, layers: int) -> jax.Array:
    """Mean cross-entropy in nats of targets (B, T) given tokens (B, T)."""
    B, T = tokens.shape
    x = weights["token_embedding.weight"][tokens] + weights["position_embedding.weight"][:T]
    for layer in range(layers):
        block = f"blocks.{layer}"
        normalised = _layernorm(x, weights[f"{block}.attention_norm.weight"])
        projected = normalised @ weights[f"{block}.query_key_value.weight"].T
        query, key, value = jnp.moveaxis(projected.reshape(B, T, 3, heads, -1), 2, 0)  # each (B, T, H, D)
        gathered = jax.nn.dot_product_attention(query, key, value, is_causal=True).reshape(x.shape)
        x = x + gathered @ weights[f"{block}.output.weight"].T
        normalised = _layernorm(x, weights[f"{block}.feed_forward_norm.weight"])
        hidden = jax.nn.gelu(normalised @ weights[f"{block}.expand.weight"].T, approximate=True)
        x = x + hidden @ weights[f"{block}.contract.weight"].T
    logits = _layernorm(x, weights["final_norm.weight"]) @ weights["token_embedding.weight"].T
    right = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - right).mean()


def _layernorm(x: jax.Array, gain: jax.Array) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + EPSILON_OF_NORM) * gain


def _clipped(gradient: Weights) -> Weights:
    norm = jnp.sqrt(sum(jnp.vdot(part, part) for part in gradient.values()))
    return jax.tree.map(lambda part: part * jnp.minimum(1, CLIP / norm), gradient)


def _adamw(state: dict[str, Weights], gradient: Weights, number: jax.Array) -> dict[str, Weights]:
    """Return weights and averages after update `number`, counted from 1; only matrices decay."""
    beta_1, beta_2 = BETAS
    mean = jax.tree.map(lambda m, g: beta_1 * m + (1 - beta_1) * g, state["mean"], gradient)
    square = jax.tree.map(lambda s, g: beta_2 * s + (1 - beta_2) * g * g, state["square"], gradient)

    def moved(weight: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        kept = weight * (1 - LEARNING_RATE * WEIGHT_DECAY) if weight.ndim >= 2 else weight
        root = jnp.sqrt(s / (1 - beta_2**number)) + EPSILON_OF_ADAM
        return kept - LEARNING_RATE * m / (1 - beta_1**number) / root

    weights = jax.tree.map(moved, state["weights"], mean, square)
    return {"weights": weights, "mean": mean, "square": square}
