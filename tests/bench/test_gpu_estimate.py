"""What a training step asks of a GPU, counted on paper, is what one works out by hand."""

from __future__ import annotations

import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.configurations import Configuration
from bench.gpu.estimate import COUNTED, Part, Roofs, count, estimate, estimate_generation, maker_of, tables_of
from bench.gpu.models import make_train_step
from tests.cuda_on_cpu.places import needs_compiler
from tests.cuda_on_cpu.tracing import traced
from tests.docs.pages import ROOT, read
from tinygrad_chat.backend import Compute
from tinygrad_chat.kernels.cuda import attention
from tinygrad_chat.models.nanochat import NANOCHAT
from tinygrad_chat.training.step import TrainStep

pytestmark = needs_compiler

B, V, T, C, H, L = 2, 48, 8, 32, 2, 1
TINY = Configuration.of(B, V, T, C, H, L)
N = B * T  # tokens
BFLOAT16, FLOAT32 = 2, 4  # bytes
MATRICES = V * C + T * C + 4 * C * C + 2 * 4 * C * C
PARAMETERS = MATRICES + 3 * C  # gains of the norms


def parts_of(configuration: Configuration, roofs: Roofs) -> dict[str, Part]:
    return {part.name: part for part in count(maker_of(configuration), lambda: configuration.draw(0), roofs)}


def counted(part: str) -> Part:
    return parts_of(TINY, Roofs())[part]


def test_attention_is_six_products_a_sequence_and_a_softmax_both_ways():
    attention = counted("attention")
    stream, scores = N * C * BFLOAT16, B * H * T * T
    assert attention.calls == 6 * B + 2
    assert attention.operations == 6 * 2 * scores * (C // H)
    weights, in_float32 = scores * BFLOAT16, scores * FLOAT32
    forward = 2 * stream + in_float32 + (weights + stream)  # queries with keys; softmax; weights with values
    softmax_backward = weights + in_float32
    backward = 2 * stream + softmax_backward + 3 * (weights + stream)  # d_weights; then d_query, d_key, d_value
    assert attention.read == forward + backward
    assert attention.written == (in_float32 + weights + stream) + (in_float32 + weights + 3 * stream)


def test_the_linear_layers_are_three_products_each_and_write_the_gradients_of_weights_where_they_lie():
    products = counted("other products")
    shapes = [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C), (V, C)]  # outputs, inputs; query, key and value are one
    assert products.operations == sum(3 * 2 * N * D * K for D, K in shapes)
    assert products.calls == 3 * len(shapes)
    activations = sum(3 * N * (D + K) * BFLOAT16 for D, K in shapes)  # each of x, out, d_out, d_x: in two or in one
    weights = sum(2 * D * K * BFLOAT16 + D * K * FLOAT32 for D, K in shapes)  # gradients are written, not read
    assert products.read + products.written == activations + weights


ROTARY: dict[str, dict[str, Any]] = {
    "Llama's, with shared heads": {"positions": "rotary", "norm": "rmsnorm", "tied": False, "key_value_heads": 1},
    "Llama's, with a gate": {"positions": "rotary", "norm": "rmsnorm", "tied": False, "activation": "swiglu"},
    "nanochat's": {**NANOCHAT, "window_pattern": "L"},
}


@pytest.mark.parametrize("name", ROTARY)
def test_layers_of_one_input_are_one_product_each_way_with_rotary_positions_and_gates_too(name: str):
    options = replace(TINY.options, **ROTARY[name])
    products = parts_of(replace(TINY, options=options), Roofs())["other products"]
    whole = options.query_width + 2 * options.key_value_width
    gates, F = [(H, options.gate_channels)] if options.has_value_embedding(0) else [], options.feed_forward_channels
    expanded = 2 * F if options.activation == "swiglu" else F  # the gate is beside the layer that it gates
    shapes = [(whole, C), (C, C), (expanded, C), (C, F), (V, C), *gates]
    assert products.operations == sum(3 * 2 * N * D * K for D, K in shapes)
    assert products.calls == 3 * len(shapes)


def test_the_gradient_of_a_gain_is_added_up_where_it_lies():
    norms, layernorms = counted("norms"), 3
    sum_of_two = 1  # what the first one's branch and the stream give for its input
    assert norms.calls == layernorms * (1 + 2) + sum_of_two  # the gradient in two


def test_a_norm_adds_what_comes_through_the_stream_to_its_gradient_in_the_same_pass():
    options = replace(TINY.options, **ROTARY["nanochat's"])
    norms = parts_of(replace(TINY, options=options), Roofs())["norms"]
    alone, added_before = 3, 1  # of the embedding, before attention, at the end; before the feed-forward layers
    stream = N * C * BFLOAT16
    statistics = (alone + added_before) * 2 * N * FLOAT32
    assert norms.calls == 2 * (alone + added_before)
    forward = (2 * alone + 4 * added_before) * stream
    backward = (3 * alone + 1 + 4 * added_before) * stream  # 1: only attention's norm is not alone in reading its input
    assert norms.read + norms.written == forward + backward + 2 * statistics


def test_the_optimiser_reads_and_writes_each_average_once_and_reads_the_gradient_twice():
    optimiser, partial = counted("optimiser"), math.ceil(PARAMETERS / (4 * 256)) * FLOAT32  # a block has 256 threads
    scalars, number = 6 * FLOAT32, FLOAT32
    small = {
        "read": [partial, number, number + number, scalars + number],
        "written": [partial, number + number, number, number],
    }
    assert optimiser.calls == 5  # norm and scale in two; loss and scale in two; AdamW
    assert optimiser.read == PARAMETERS * FLOAT32 * (1 + 4) + sum(small["read"])
    assert optimiser.written == PARAMETERS * (FLOAT32 * 3 + BFLOAT16) + sum(small["written"])


def test_cross_entropy_reads_the_logits_once_and_writes_their_gradient_once():
    loss, logits, labels = counted("cross-entropy"), N * V * BFLOAT16, N * 4
    per_token, number, count = N * FLOAT32, FLOAT32, 8
    assert loss.calls == 5  # count and factor; losses and gradient; the mean; what d_out asks for, which is nothing
    assert loss.read == (labels + count) + (logits + labels + number) + (per_token + number) + number
    assert loss.written == count + number + (per_token + logits) + number


def test_the_embedding_touches_only_the_rows_of_its_tokens():
    wide = Configuration.of(B, 5 * V, T, C, H, L)  # whose sort has keys of one byte, too
    assert parts_of(wide, Roofs())["embedding"].read == counted("embedding").read


def test_a_kernel_that_multiplies_by_itself_has_the_operations_that_its_op_needs(monkeypatch: pytest.MonkeyPatch):
    by_products = counted("attention")
    monkeypatch.setattr(attention, "gemm", lambda left, right, out, **options: out)  # as if the softmax did it all
    by_kernels = counted("attention")
    assert (by_kernels.calls, by_kernels.operations) == (2, by_products.operations)


def test_a_step_takes_as_long_as_its_calls_one_after_another_each_at_its_own_roof():
    slow_memory = parts_of(TINY, Roofs(tflops=1e9, gbytes=1.0))
    assert all(part.seconds == pytest.approx((part.read + part.written) / 1e9) for part in slow_memory.values())
    slow_products = parts_of(TINY, Roofs(tflops=1e-6, gbytes=1e9))["other products"]
    assert slow_products.seconds == pytest.approx(slow_products.operations / 1e6, rel=1e-3)


def test_products_in_float32_have_a_roof_of_their_own():
    def in_float32(device: Any) -> TrainStep:
        return make_train_step(TINY, Compute.choose(device, dtype="float32"))

    for make, depends in ((in_float32, True), (maker_of(TINY), False)):
        slow, fast = (
            {part.name: part for part in count(make, lambda: TINY.draw(0), Roofs(float32_tflops=roof))}
            for roof in (1e-6, 1e9)
        )
        assert (slow["other products"].seconds > slow["other products"].operations / 1.0001e6) == depends
        assert (slow["other products"].seconds > fast["other products"].seconds) == depends


def test_muons_products_have_factors_in_bfloat16():
    slow, fast = (
        next(part for part in estimate("d12", Roofs(float32_tflops=roof)) if part.name == "optimiser")
        for roof in (1.0, 1e9)
    )
    assert slow.operations > 1.6e12
    assert slow.seconds == fast.seconds


def test_the_steps_of_large_models_are_counted_without_their_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (products,) = (part for part in estimate("GPT-2 124M", Roofs()) if part.name == "other products")
    assert products.operations == 3 * 2 * 16 * 1024 * (12 * 12 * 768 * 768 + 50304 * 768)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB; a step fills 15 GiB


def test_a_function_whose_sizes_are_not_known_is_refused_and_not_left_out():
    with traced() as device, pytest.raises(NotImplementedError, match="cumsum"):
        device.xp.cumsum(device.xp.empty(3))
    with traced() as device, pytest.raises(NotImplementedError, match="an array as an index"):
        device.xp.empty(3)[device.xp.empty(3, bool)]


def test_a_token_of_generation_reads_every_weight_and_key_once():
    found = {part.name: part for part in estimate_generation("GPT-2 124M", Roofs())}
    width, layers, context = 768, 12, 1024
    products = found["other products"]
    assert products.calls == 4 * layers + 1  # query, key and value in one
    assert products.operations == 2 * (12 * layers * width * width + 50304 * width)
    read = BFLOAT16 * 2 * layers * context * width
    assert read < found["attention"].read < 1.2 * read
    assert sum(part.calls for part in found.values()) < 140


def test_the_page_shows_what_is_counted_today():
    page = read(Path(ROOT) / "docs" / "performance.md")
    for name in COUNTED:
        tables = tables_of(name, Roofs())
        assert tables in page, f"python -m bench gpu --estimate --configurations '{name}' says:\n{tables}"


def test_the_command_line_prints_the_tables_at_given_roofs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    flags = ["--configurations", "mini-gpt", "--tflops", "100", "--gbytes", "10", "--float32-tflops", "1"]
    monkeypatch.setattr("sys.argv", ["bench", "gpu", "--estimate", *flags])
    main()
    roofs = Roofs(100.0, 10.0, 1.0)
    assert capsys.readouterr().out == tables_of("mini-gpt", roofs) + "\n"
