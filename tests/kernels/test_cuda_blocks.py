"""No kernel's result depends on the order in which its blocks run: no two of them meet in one place."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from bench.kernels import files
from tests.catalogue import CATALOGUE
from tests.cuda_on_cpu.compiler import RawModule, both_orders
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import HOSTS, needs_compiler
from tests.kernels.test_cuda import CORNERS, TYPES, compare, drawn, loss_case, moved
from tests.kernels.test_cuda_muon import Stack
from tests.kernels.test_flash_attention import CALLS, compute
from tests.profiles import CI
from tinygrad_chat.backend import load_kernels
from tinygrad_chat.kernels.cuda import cross_entropy, flash_attention
from tinygrad_chat.kernels.cuda.launch import flags, source
from tinygrad_chat.nn.cache import write_columns
from tinygrad_chat.optim.adamw import adamw_update
from tinygrad_chat.optim.clipping import norm_and_scale
from tinygrad_chat.optim.muon import update_matrices

ONE_BLOCK = {
    "mean_loss",
    "norm_and_scale",
    "row_factor",
    "scaled_sum_backward_scales",
}  # by design: each adds up what blocks have left


@needs_compiler
@CI
@pytest.mark.parametrize("real", TYPES)
def test_every_kernel_gives_the_same_bits_whichever_of_its_blocks_comes_first(
    real: str, monkeypatch: pytest.MonkeyPatch
):
    every = {
        name
        for file, kind in files()
        if kind == real
        for name in RawModule(code=source(file), options=flags(np.dtype(real))).parameters
    }
    kernels, scalars = load_kernels("cuda"), np.array((0.9, 0.01, 0.2, 0.05, 2.0, 1e-8), np.float32)
    with standing_in(), both_orders() as compared:
        for name, case in CORNERS.values():
            compare(DEVICE, CATALOGUE[name], case, real)
        monkeypatch.setattr(cross_entropy, "PIECES", 0)  # no row fits in registers
        compare(DEVICE, CATALOGUE["cross_entropy"], loss_case(5, 20)[1], real)
        gradient, *others = (moved(DEVICE, np.abs(drawn(5000)), np.float32) for _ in range(4))
        kernels[norm_and_scale](gradient, 0.5)
        copy = DEVICE.xp.empty(5000, real)
        kernels[adamw_update](*others, gradient, moved(DEVICE, scalars, np.float32), compute_weights=copy, decayed=700)
        for shape in ((2, 24, 40), (2, 40, 1040), (2, 40, 24)):
            Stack.draw(*shape).update(kernels[update_matrices], DEVICE, copy=real, factors=np.dtype(real))
        (key, keys), (value, values) = ([moved(DEVICE, drawn(2, T, 40), real) for T in (3, 30)] for _ in range(2))
        kernels[write_columns](key, value, keys, values, 7)
        for D, compute_capability in product(flash_attention.WIDTHS, HOSTS.values() if real == "bfloat16" else ()):
            monkeypatch.setattr(DEVICE, "compute_capability", compute_capability)
            call = CALLS["several tiles and sequences"]
            query, key, value, d_out = call.inputs(D)
            together = np.split(DEVICE.xp.asarray(np.concatenate([query, key, value], axis=2)), 3, axis=2)
            for given in ((query, key, value), together):
                compute(DEVICE, call, [*given, d_out])
    assert every - compared == ONE_BLOCK
