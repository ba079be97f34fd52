"""Kernels for the CPU, compiled by Numba: each passes over memory once, and costs little to call on small arrays.

Each has the signature of the op it replaces and is held to it by tests/test_catalogue.py. The others are NumPy's. They
take float32 and float64 in the processor's own byte order; for other types there is `--kernels numpy`.
"""

from tinygrad_chat import ops
from tinygrad_chat.kernels.numba.adamw import adamw_update
from tinygrad_chat.kernels.numba.attention import attention
from tinygrad_chat.kernels.numba.cross_entropy import cross_entropy
from tinygrad_chat.kernels.numba.embedding import embedding
from tinygrad_chat.kernels.numba.normalization import layernorm, rmsnorm
from tinygrad_chat.kernels.numba.pointwise import gelu, squared_relu
from tinygrad_chat.kernels.numba.rotary import rotary
from tinygrad_chat.kernels.numpy import KERNELS as NUMPY_KERNELS
from tinygrad_chat.optim import adamw

KERNELS = {
    **NUMPY_KERNELS,
    adamw.adamw_update: adamw_update,
    ops.attention: attention,
    ops.cross_entropy: cross_entropy,
    ops.embedding: embedding,
    ops.gelu: gelu,
    ops.layernorm: layernorm,
    ops.rmsnorm: rmsnorm,
    ops.rotary: rotary,
    ops.squared_relu: squared_relu,
}
