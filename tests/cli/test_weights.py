"""--weights: how a trained model is kept while it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinygrad_chat
from tests.cli.conftest import Tgc
from tinygrad_chat.errors import ConfigError

TRAINING = ("--steps", "3", "--layers", "1", "--heads", "2", "--width", "16", "--context", "8", "--tokenizer", "bytes")


@pytest.fixture
def run(tgc: Tgc) -> None:
    """A run of a small GPT, in the folder that we are in."""
    Path("abc.txt").write_text("abc dba\n" * 40)
    assert tgc("train", *TRAINING, "--backend", "numpy", "--data", "abc.txt", "--out", "runs/r")[0] == 0


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("run")
def test_each_type_opens_samples_and_is_measured(tgc: Tgc):
    exact = tinygrad_chat.load("r", backend="numpy").logits("abc")
    for kind, difference in (("float16", 1e-3), ("int8", 2e-2)):
        model = tinygrad_chat.load("r", backend="numpy", weights=kind)
        np.testing.assert_allclose(model.logits("abc"), exact, atol=difference)
        code, text, _ = tgc("sample", "--checkpoint", "r", "--weights", kind, "--backend", "numpy", "--seed", "1")
        assert (code, len(text) > 10) == (0, True)
        assert tgc("eval", "r", "--weights", kind, "--backend", "numpy")[0] == 0


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "int4"), "--weights: expected one of float32, float16, int8, received 'int4'"),
        (("--weights", "int8", "--mode", "scalar"), "--weights: expected float32 with --mode scalar, received int8"),
        (
            ("--weights", "int8", "--backend", "cupy"),
            "--weights: expected float32 on a GPU, received int8; or use --backend numpy",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tgc: Tgc, arguments: tuple[str, ...], message: str):
    for command in (("sample", "--checkpoint", "r"), ("eval", "r"), ("chat", "-p", "Hello"), ("serve", "r")):
        code, _, said = tgc(*command, *arguments)
        assert (code, said) == (ConfigError.exit_code, f"tgc: {message}\n")


@pytest.mark.usefixtures("run")
def test_a_run_in_scalar_mode_is_refused_by_its_own_mode():
    with pytest.raises(ConfigError, match=r"^--weights: expected float32 with --mode scalar, received float16"):
        tinygrad_chat.load("r", mode="scalar", weights="float16")
