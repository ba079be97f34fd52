"""Kernels for the CPU, in NumPy: the same maths as the ops, in place and in fewer passes over memory.

Each has the signature of the op it replaces and is tested against it by tests/test_catalogue.py.
"""

from tinygrad_chat import ops
from tinygrad_chat.kernels.numpy.adamw import adamw_update
from tinygrad_chat.kernels.numpy.attention import attention
from tinygrad_chat.kernels.numpy.cross_entropy import cross_entropy
from tinygrad_chat.kernels.numpy.embedding import embedding
from tinygrad_chat.kernels.numpy.linear import linear
from tinygrad_chat.kernels.numpy.normalization import layernorm, rmsnorm
from tinygrad_chat.kernels.numpy.pointwise import gelu, swiglu
from tinygrad_chat.kernels.numpy.quantized_product import quantized_product
from tinygrad_chat.nn import quantized
from tinygrad_chat.optim import adamw

KERNELS = {
    adamw.adamw_update: adamw_update,
    ops.attention: attention,
    ops.cross_entropy: cross_entropy,
    ops.embedding: embedding,
    ops.gelu: gelu,
    ops.layernorm: layernorm,
    ops.linear: linear,
    ops.rmsnorm: rmsnorm,
    ops.swiglu: swiglu,
    quantized.quantized_product: quantized_product,
}
