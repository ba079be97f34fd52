"""What the stages of `python -m bench gpu` measure: engines that may fail, kernels that may be wrong, nanochat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import turns
from bench.gpu import correctness, d12, engines, products
from bench.gpu.stages import Record, Settings
from bench.peers import nanochat
from bench.upstream_worker import COMPILED, EAGER
from tests.cuda_on_cpu.device import DEVICE, standing_in
from tests.cuda_on_cpu.places import needs_compiler
from tests.profiles import DEEP
from tests.upstream import NANOCHAT_DIR, needs_upstream
from tinygrad_chat.backend import Compute
from tinygrad_chat.kernels.cuda import attention, flash_attention, flash_decoding, launch


class Worker:
    """A worker that fails, has no room, or answers."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ask(self, request: Any, *, within: float) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_peer_that_fails_is_recorded_and_the_others_go_on_but_not_without_ours(tmp_path: Path):
    record, broken = Record(tmp_path / "stage.jsonl"), Worker(turns.BenchmarkError("no triton"))
    workers: Any = {turns.OURS: Worker({"seconds": 1}), "torch compile": broken}
    opened = engines.Engines(workers, record)
    assert opened.ask("torch compile", {"what": "seconds"}) is None
    assert opened.ask("torch compile", {"what": "seconds"}) is None
    assert opened.names == [turns.OURS]
    assert [line["reason"] for line in record.lines()] == ["no triton"]
    with pytest.raises(turns.BenchmarkError, match="no triton"):
        engines.Engines({turns.OURS: broken}, record).ask(turns.OURS, {"what": "seconds"})  # pyright: ignore[reportArgumentType]


def test_a_peer_that_hangs_does_not_cost_the_others_their_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engines, "PATIENCE", 0.2)
    record = Record(tmp_path / "stage.jsonl")
    with turns.open_workers({"torch compile": ["sleeper"]}, own_sessions=False) as workers:
        assert engines.Engines(workers, record).ask("torch compile", {"what": "losses"}) is None
    assert [line["reason"] for line in record.lines()] == ["no answer within 0.2 s"]


def test_a_peer_without_room_is_dropped_unless_it_may_lack_room_and_ours_is_an_error(tmp_path: Path):
    full: Any = {name: Worker({"out_of_memory": True}) for name in engines.NAMES}
    opened = engines.Engines(full, Record(tmp_path / "stage.jsonl"))
    with pytest.raises(engines.OutOfRoomError, match="no room on the device for seconds"):
        opened.ask("torch eager", {"what": "seconds"}, must_fit=False)
    assert opened.names == list(engines.NAMES)
    assert opened.ask("torch eager", {"what": "seconds"}) is None
    assert opened.names == [turns.OURS, "torch compile"]
    with pytest.raises(engines.OutOfRoomError):
        opened.ask(turns.OURS, {"what": "seconds"})


@DEEP
def test_ours_is_measured_even_where_a_checkout_of_nanochat_is_named_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nanochat, "why_absent", lambda folder: None)
    record = Record(tmp_path / "stage.jsonl")
    d12.measure_d12(Settings(str(tmp_path), trial=True, nanochat=str(tmp_path)), record)
    found = [(line["what"], line["engine"]) for line in record.lines()]
    assert found == [("nanochat", turns.OURS), ("engine failed", COMPILED), ("engine failed", EAGER)]
    monkeypatch.setattr(d12, "ENGINES", (EAGER,))
    with pytest.raises(turns.BenchmarkError, match="no engine works"):
        d12.measure_d12(Settings(str(tmp_path), trial=True, nanochat=str(tmp_path)), record)


@needs_upstream
@pytest.mark.upstream
def test_nanochat_is_measured_beside_ours_and_says_which_attention_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(d12, "ENGINES", (turns.OURS, EAGER))
    record = Record(tmp_path / "stage.jsonl")
    d12.measure_d12(Settings(str(tmp_path), trial=True, nanochat=NANOCHAT_DIR), record)
    attention = {line["engine"]: line["attention"] for line in record.lines()}
    assert attention == {turns.OURS: "its own", EAGER: "PyTorch's scaled_dot_product_attention, a mask for windows"}


@needs_compiler
@DEEP
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernels_are_compared_with_the_host_and_a_wrong_one_is_told(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(correctness, "STEPS", 1)
    monkeypatch.setattr(correctness, "BATCH", 1)
    record = Record(tmp_path / "stage.jsonl")
    scored = ["masked_softmax_backward", "flash_backward_queries"]
    with standing_in(capturing=True):
        compute = Compute.choose(DEVICE, dtype=dtype)
        assert correctness.compare_with_host(compute, record) == []
        right = attention.launch

        def halved(file: str, name: str, *rest: Any, **options: Any) -> None:
            changed: list[Any] = [x / 2 if name in scored and isinstance(x, float) else x for x in rest]
            right(file, name, *changed, **options)

        for module in (attention, flash_attention, flash_decoding):
            monkeypatch.setattr(module, "launch", halved)
        all_models = [f"{name} in {dtype}" for name in correctness.MODELS]
        assert correctness.compare_with_host(compute, record) == all_models  # the gradient of scores has half its scale
        scored[:] = ["flash_decoding_split"]  # scores of flash decoding have
        assert correctness.compare_with_host(compute, record) == all_models


@needs_compiler
def test_where_attention_is_by_wgmma_models_are_compared_by_mma_sync_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files, load = [], launch.load_module
    monkeypatch.setattr(launch, "load_module", lambda xp, file, real: files.append(file) or load(xp, file, real))
    monkeypatch.setattr(correctness, "STEPS", 1)
    monkeypatch.setattr(correctness, "BATCH", 1)
    monkeypatch.setattr(correctness, "MODELS", {"GPT-2": correctness.MODELS["GPT-2"]})
    record = Record(tmp_path / "stage.jsonl")
    with standing_in():
        assert correctness.compare_without_wgmma(Compute.choose(DEVICE), record) == []
    assert record.lines() == []
    for cache in (launch._module, launch._function):
        cache.cache_clear()
    with standing_in(compute_capability="90"):
        assert correctness.compare_without_wgmma(Compute.choose(DEVICE), record) == []
    assert [(line["model"], line["close"]) for line in record.lines()] == [("GPT-2 by mma.sync", True)]
    assert "flash_attention_64.cu" in files
    assert "flash_attention_wgmma_64.cu" not in files


@needs_compiler
def test_every_file_of_kernels_is_compiled_for_every_type_and_one_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    record, older = (Record(tmp_path / name) for name in ("stage.jsonl", "older.jsonl"))
    with standing_in(compute_capability="90"):
        assert correctness.compile_kernels(DEVICE.xp, ("bfloat16", "tf32"), record) == []
        assert [(line["file"], line["real"]) for line in record.lines()] == correctness.files()
    with standing_in():
        assert correctness.compile_kernels(DEVICE.xp, ("bfloat16", "tf32"), older) == []
        left_out = {line["file"] for line in record.lines()} - {line["file"] for line in older.lines()}
        assert left_out == {"flash_attention_wgmma_64.cu", "flash_attention_wgmma_128.cu"}
        for module in (correctness, launch):
            monkeypatch.setattr(module, "source", lambda file: "nonsense" if file == "sums.cu" else "")
        monkeypatch.setattr(correctness, "ENTRY", correctness.re.compile("(no kernel)"))
        assert correctness.compile_kernels(DEVICE.xp, ("float32",), record) == ["sums.cu for float32"]


@needs_compiler
def test_products_are_measured_by_both_ways_with_gelu_within_and_beside_them(tmp_path: Path):
    record = Record(tmp_path / "stage.jsonl")
    products.measure_products(Settings(str(tmp_path), trial=True), record)
    assert len(found := [line for line in record.lines() if line["what"] == "product"]) == 15
    assert all(line["seconds"] == {"plan": 2, "cublas": 4} for line in found)  # by the stand-in's clock
    assert all(0 < line["distance"] < 1e-5 for line in record.lines())
    within = [line["seconds"]["within"] for line in record.lines() if line["what"] == "epilogue"]
    assert within == [2, 2]


@needs_compiler
@pytest.mark.parametrize("fault", ["another slope", "no algorithm"])
def test_an_epilogue_that_is_wrong_or_missing_is_told_and_not_timed(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if fault == "no algorithm":
        monkeypatch.setattr(products, "EPILOGUE_DGELU", 208)
    else:
        monkeypatch.setattr(products, "EPILOGUE_DGELU", products.EPILOGUE_GELU_AUX)
    record = Record(tmp_path / "stage.jsonl")
    products.measure_products(Settings(str(tmp_path), trial=True), record)
    last = record.lines()[-1]
    if fault == "no algorithm":
        assert (last["what"], last["reason"]) == ("no epilogue", "cublasLt has no algorithm for it")
    else:
        assert last["distance"] > products.FAR
        assert last["seconds"]["within"] is None


def test_without_pytorch_there_is_only_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    record = Record(tmp_path / "stage.jsonl")
    with engines.open_engines(Settings(str(tmp_path), trial=True), record) as opened:
        assert opened.names == [turns.OURS]
    assert [line["reason"] for line in record.lines()] == ["PyTorch is not installed"]


def test_pytorch_says_which_of_its_attentions_it_takes(monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    from bench.peers.torch_attention import chosen_attention

    sizes: dict[str, Any] = {"heads": 2, "context": 16, "head_width": 8}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert chosen_attention("cpu", torch.float32, **sizes) == "math"
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        assert chosen_attention("cpu", torch.float32, **sizes) == "flash attention"
        assert chosen_attention("cpu", torch.float32, **sizes, masked=True) == "flash attention"
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    assert chosen_attention("cpu", torch.float32, **sizes) == "attention, not known which: KeyError"
