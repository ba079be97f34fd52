"""Faults in the ops: their forwards, their backward rules, and what bounds them."""

from __future__ import annotations

FAULTS = {
    "ops/arithmetic.py": {
        "subtract: wrong sign of the second gradient": ("sum_to(-d_out, y)", "sum_to(d_out, y)"),
        "multiply: the gradients are swapped": (
            "sum_to(d_out * y, x), sum_to(d_out * x, y)",
            "sum_to(d_out * x, x), sum_to(d_out * y, y)",
        ),
        "divide: the second gradient is divided once only": ("-d_out * (out / y)", "-d_out * out"),
        "where: one side always gets the gradient": ("xp.where(condition, 0, d_out)", "d_out"),
    },
    "ops/broadcasting.py": {
        "the gradient of a copy is a mean": ("gradient.sum(axis=", "gradient.mean(axis="),
    },
    "ops/reduction.py": {
        "mean: the gradient is not divided": ("d_out / count", "d_out"),
        "var: a factor of 2 is missing": ("2 / divisor", "1 / divisor"),
        "var: another correction plays no part": ("correction + 1) - correction", "correction + 1) - 1"),
        "std: the gradient of equals is nan": ("xp.where(out == 0, math.inf, out)", "out"),
        "max: equals get the whole gradient each": (
            "chosen / chosen.sum(axis=axis, keepdims=True).astype(x.dtype)",
            "chosen.astype(x.dtype)",
        ),
    },
    "ops/pointwise.py": {
        "abs: slope 1 at 0": ("xp.sign(x)", "xp.where(x < 0, -xp.ones_like(x), xp.ones_like(x))"),
        "clip: the gradient passes where it was clipped": ("d_out * (out == x)", "d_out"),
        "tanh: the square is missing": ("1 - out * out", "1 - out"),
        "squared_relu: a factor of 2 is missing": ("d_out * 2 * positive", "d_out * positive"),
        "swiglu: the gate's slope is the sigmoid's alone": ("(s * (1 + gate * (1 - s)))", "s"),
        "gelu: two digits are swapped": ("0.044715", "0.044175"),
        "gelu: the slope of the cube without its 3": ("1 + 3 * GELU_CUBIC", "1 + GELU_CUBIC"),
    },
    "ops/matmul.py": {
        "linear: the bias's gradient is a mean": ("d_rows.sum(axis=0)", "d_rows.mean(axis=0)"),
        "linear: the weight's gradient is transposed": ("d_rows.T @ rows", "rows.T @ d_rows"),
        "linears: the last layer alone has a say in the gradient of their input": (
            "functools.reduce(operator.add, [",
            "functools.reduce(lambda total, one: one, [",
        ),
    },
    "ops/normalization.py": {
        "layernorm: the mean's part is missing": (
            "d_unit - along_mean - unit * along_unit",
            "d_unit - unit * along_unit",
        ),
        "layernorm: epsilon stands outside the root": ("sqrt(variance + epsilon)", "sqrt(variance) + epsilon"),
        "rmsnorm: the part along the row is missing": (
            "inverse_rms * (d_unit - unit * along_unit)",
            "inverse_rms * d_unit",
        ),
        "add and norm: what comes through the stream is lost": ("d_x = d_x + d_total", "pass"),
    },
    "ops/softmax.py": {
        "softmax: the maximum stays in": ("exp(x - x.max(axis=axis, keepdims=True))", "exp(x)"),
        "softmax: the gradient sums over the last axis": ("(d_out * out).sum(axis=axis", "(d_out * out).sum(axis=-1"),
        "log_softmax: a mean for a sum": ("d_out.sum(axis=axis", "d_out.mean(axis=axis"),
    },
    "ops/rotary.py": {
        "the gradient is turned on": (
            "d_out.reshape(heads.shape), cosine, -sine",
            "d_out.reshape(heads.shape), cosine, sine",
        ),
        "angles of twice as wide a head": ("head_width, 2) / head_width", "head_width, 2) / (2 * head_width)"),
        "the size of heads is forgotten": ("heads = unit * rms", "heads = unit"),
        "the gain's gradient is that of heads of size 1": ("sum_rows(d_heads * sized)", "sum_rows(d_heads * heads)"),
        "the gain is left out of the gradient": ("d_heads = d_heads * gain", "pass"),
        "pairs are not slowed down": ("frequencies = frequencies * scales", "pass"),
    },
    "ops/embedding.py": {
        "a token seen twice gets one gradient": ("xp.add.at(d_table, tokens, d_out)", "d_table[tokens] = d_out"),
    },
    "ops/dropout.py": {
        "what stays is not scaled": ("x * kept * scale, backward", "x * kept, backward"),
        "a part begins where the whole does": ("seed, offset, x.size", "seed, 0, x.size"),
        "another sequence": ("(z >> 27)", "(z >> 28)"),
    },
    "ops/cross_entropy.py": {
        "ignored targets count in the mean": ("xp.maximum(counted.sum(), 1)", "xp.maximum(counted.size, 1)"),
        "the soft cap's slope is missing": ("d_rows *= 1 - bent * bent", "pass"),
        "ignored targets have a gradient": (
            "xp.where(counted[:, None], d_rows * d_each, 0)",
            "d_rows * d_each",
        ),
        "weights are left out of the gradient": ("d_out / count if weights is None else", "d_out / count if True else"),
        "token_losses: each slice takes the labels of the first": ("labels[part]]", "labels[: len(shifted)]]"),
    },
    "ops/attention.py": {
        "a document's first token is not seen": ("key >= document_starts", "key > document_starts"),
        "each query sees the next key": ("key <= query if", "key <= query + 1 if"),
        "the window is one too long": ("key > query - window", "key >= query - window"),
        "with a cache, queries stand at the first keys": (
            "xp.arange(T)[:, None] + (length - T)",
            "xp.arange(T)[:, None]",
        ),
        "what is not there yet is seen where nothing is causal": (
            "xp.broadcast_to(key < length,",
            "xp.broadcast_to(key < S,",
        ),
        "the scale is missing in the backward rule": ("d_scores * scale", "d_scores"),
        "shared keys get the mean of their heads": (
            "d_key = (d_products.swapaxes(-1, -2) @ q).sum(",
            "d_key = (d_products.swapaxes(-1, -2) @ q).mean(",
        ),
    },
    "ops/mixing.py": {
        "scaled_sum: wrong sign of a scale that is subtracted": ("-along_y if subtract else along_y", "along_y"),
        "gated_sum: half of the gate's slope": (
            "*sigmoid_backward(d_openness)\n\n    return x + (gate",
            "d_openness * openness\n\n    return x + (gate",
        ),
        "smear: the gate's part of x is missing": ("d_x[..., :K] += d_logit * weight", "pass"),
        "smear: what came before the piece is forgotten": (
            "xp.zeros_like(x[:, :1]) if before is None else before",
            "xp.zeros_like(x[:, :1])",
        ),
    },
    "ops/shape.py": {
        "transpose: the gradient takes the same way, not back": ("[to.index(axis) for axis in range(x.ndim)]", "to"),
        "index: an element taken twice gets one gradient": ("xp.add.at(d_x, key, d_out)", "d_x[key] = d_out"),
        "stack: gradients lie along the wrong axis": ("moveaxis(d_out, axis, 0)", "moveaxis(d_out, 0, axis)"),
    },
}
