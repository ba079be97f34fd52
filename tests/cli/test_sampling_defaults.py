"""What another program's model says of drawing tokens is the default of `tgc sample` and `tgc chat`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Tgc
from tests.interchange.models import small_model
from tinygrad_chat.interchange.huggingface_export import export_huggingface


def test_a_flag_comes_before_what_the_model_says(tgc: Tgc, tmp_path: Path):
    folder = tmp_path / "model"
    export_huggingface(small_model("qwen3", chatml=True), folder)
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False}))
    sample = ("sample", "--checkpoint", str(folder), "--max-new-tokens", "4", "--kernels", "numpy")
    chat = ("chat", str(folder), "-p", "hi", "--max-new-tokens", "4", "--kernels", "numpy")
    code, text, said = tgc(*sample)
    assert (code, said) == (0, "")  # nothing is drawn: no seed is told
    assert tgc(*sample)[1] == text
    assert "tgc: seed" in tgc(*sample, "--temperature", "1")[2]
    likeliest = tgc(*chat)[1]
    assert tgc(*chat, "--seed", "2")[1] == likeliest
    drawn = {tgc(*chat, "--temperature", "5", "--seed", seed)[1] for seed in "123"}
    assert len(drawn) == 3
