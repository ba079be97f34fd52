"""WHICH MATHS: every op as a forward and, beside it, its backward rule.

Each is a plain function of arrays; no Tensor, kernel or device appears here. The gradient of `v` is `d_v`.
In edge cases (0, infinities, nan, the tails) value and gradient are PyTorch's unless the op's docstring says otherwise.
An op computes in its arrays' own type, intermediate results included; PyTorch computes float16 in float32. So a norm
turns a row whose squares overflow into zeros: beyond 255 in float16, 1e19 in float32 (PyTorch's layernorm: nan).

Sizes: B batch, T time, S source positions, C channels, H heads, G key/value heads, D head width, V vocabulary.
"""

from tinygrad_chat.ops.arithmetic import add, divide, multiply, negative, power, subtract, where
from tinygrad_chat.ops.attention import attention
from tinygrad_chat.ops.cross_entropy import cross_entropy
from tinygrad_chat.ops.dropout import dropout
from tinygrad_chat.ops.embedding import embedding
from tinygrad_chat.ops.matmul import linear, linears, matmul
from tinygrad_chat.ops.mixing import gated_sum, scaled_sum, smear
from tinygrad_chat.ops.normalization import add_layernorm, add_rmsnorm, layernorm, rmsnorm
from tinygrad_chat.ops.pointwise import abs, clip, exp, gelu, log, relu, sigmoid, sqrt, squared_relu, swiglu, tanh
from tinygrad_chat.ops.reduction import max, mean, min, std, sum, var
from tinygrad_chat.ops.rotary import rotary, rotary_angles
from tinygrad_chat.ops.shape import concatenate, index, reshape, split, stack, transpose
from tinygrad_chat.ops.softmax import log_softmax, softmax

__all__ = [
    "abs",
    "add",
    "add_layernorm",
    "add_rmsnorm",
    "attention",
    "clip",
    "concatenate",
    "cross_entropy",
    "divide",
    "dropout",
    "embedding",
    "exp",
    "gated_sum",
    "gelu",
    "index",
    "layernorm",
    "linear",
    "linears",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "mean",
    "min",
    "multiply",
    "negative",
    "power",
    "relu",
    "reshape",
    "rmsnorm",
    "rotary",
    "rotary_angles",
    "scaled_sum",
    "sigmoid",
    "smear",
    "softmax",
    "split",
    "sqrt",
    "squared_relu",
    "stack",
    "std",
    "subtract",
    "sum",
    "swiglu",
    "tanh",
    "transpose",
    "var",
    "where",
]
