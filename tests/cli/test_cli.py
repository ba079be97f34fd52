"""`tgc` as a person meets it: each command end to end, and one line for each mistake."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, TINY_BIGRAM, Tgc
from tinygrad_chat.cli.app import run
from tinygrad_chat.inference import engine
from tinygrad_chat.training import run as run_module


@pytest.mark.profile("ci")
def test_training_needs_no_data_and_ends_with_a_summary_and_a_sample(tgc: Tgc):
    code, out, err = tgc("train", *TINY, "--tokenizer", "characters")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    number = r"[\d.]+"
    first = next(line for line in lines if line.startswith("step=0 "))
    assert re.fullmatch(
        rf"step=0 loss={number} val_loss={number} val_perplexity={number} val_bpb={number} "
        rf"lr=\S+ grad_norm={number} tokens_per_second=\d+",
        first,
    )
    assert [line.split()[0] for line in lines if line.startswith("step=")] == [f"step={step}" for step in range(5)]
    assert any(line.startswith("done: 4 steps") for line in lines)
    (folder,) = Path("runs").iterdir()
    newest_sample = sorted((folder / "samples").iterdir())[-1].read_text(encoding="utf-8")
    *_, report, _, sampling, training = lines
    assert f"\n\n{newest_sample}\n\ndone: 4 steps" in out
    losses = {int(step): float(loss) for step, loss in re.findall(r"step=(\d).* val_loss=([\d.]+)", out)}
    best = min(losses, key=lambda step: losses[step])
    assert f"\nbest val_loss {losses[best]} at step {best}: {folder}/checkpoints/step-{best:06d}\n" in out
    assert report == f"report: {folder}/report.html"
    assert Path(report.removeprefix("report: ")).exists()
    assert sampling == f"  tgc sample --checkpoint {folder}/checkpoints/step-{best:06d}"
    assert training == f"  tgc train --resume --out {folder} --steps 8"
    for command in (sampling, training):
        assert tgc(*shlex.split(command)[1:])[0] == 0


@pytest.mark.profile("ci")
def test_json_stands_alone_on_stdout(tgc: Tgc):
    code, out, err = tgc("train", *TINY, "--json", "--out", "r")
    summary = json.loads(out)
    assert code == 0
    assert (summary["run"], summary["step"], summary["interrupted"]) == ("r", 4, False)
    assert summary["checkpoint"] == str(Path("r/checkpoints/step-000004"))
    assert summary["val_loss"] > 0
    assert "step=0 " in err


@pytest.mark.profile("ci")
def test_the_saved_configuration_trains_the_same_again(tgc: Tgc):
    tgc("train", *TINY, "--out", "a", "--seed", "5")
    tgc("train", "--config", "a/config.toml", "--out", "b")
    weights = [Path(name, "checkpoints/step-000004/weights.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


@pytest.mark.profile("ci")
def test_resuming_goes_on_with_the_newest_run(tgc: Tgc):
    tgc("train", *TINY)
    code, out, _ = tgc("train", "--resume", "--steps", "6")
    assert code == 0
    assert "done: 6 steps" in out


@pytest.mark.profile("ci")
def test_resuming_a_finished_run_says_so_and_stops(tgc: Tgc):
    tgc("train", *TINY, "--out", "r")
    before = {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")}
    said = "r: its 4 steps are done; continue training with: tgc train --resume --out r --steps 8\n"
    assert tgc("train", "--resume", "--out", "r") == (0, said, "")
    code, out, err = tgc("train", "--resume", "--out", "r", "--json")
    assert (code, err) == (0, said)
    assert (json.loads(out)["step"], json.loads(out)["interrupted"]) == (4, False)
    assert {path: path.stat().st_mtime_ns for path in Path("r").rglob("*")} == before


@pytest.mark.profile("ci")
def test_a_finished_run_whose_end_a_kill_took_is_ended(tgc: Tgc):
    tgc("train", *TINY, "--out", "r")
    Path("r/outcome.json").unlink()
    code, out, _ = tgc("train", "--resume", "--out", "r")
    assert code == 0
    assert "done: 4 steps" in out
    assert json.loads(Path("r/outcome.json").read_bytes())["outcome"] == "finished"


@pytest.mark.profile("ci")
def test_a_run_whose_minutes_are_over_says_so_and_stops(tgc: Tgc):
    tiny = ("--layers", "1", "--heads", "2", "--width", "8", "--context", "8", "--batch-size", "2")
    tgc("train", *tiny, "--eval-tokens", "99", "--minutes", "0.0001", "--out", "r")
    said = "r: its 0.0001 minutes are up; continue training with: tgc train --resume --out r --minutes 0.0002\n"
    assert tgc("train", "--resume", "--out", "r") == (0, said, "")
    code, _, err = tgc("train", "--resume", "--out", "r", "--minutes", "0.00001")
    assert (code, err.startswith("tgc: --minutes: expected more than the ")) == (2, True)


@pytest.mark.profile("ci")
def test_an_ablation_takes_a_file_s_settings_as_a_file_s(tgc: Tgc):
    """One that the varied setting makes idle is let be, as in `tgc train`; one that is idle in the file is not."""
    Path("own.toml").write_text(
        "layers = 1\nheads = 2\nwidth = 8\ncontext = 8\nbatch_size = 2\nsteps = 2\nmomentum = 0.5\n"
    )
    command = ["ablate", "--config", "own.toml", "--eval-tokens", "9", "--seeds", "1", "--vary"]
    code, _, err = tgc(*command, "model=bigram|mini-gpt")
    assert (code, err.split(";")[0]) == (2, "tgc: --momentum: has no effect with --optimizer adamw")
    Path("own.toml").write_text(Path("own.toml").read_text().replace("momentum = 0.5", "dropout = 0.1"))
    for varied in ("model=bigram|mini-gpt", "mode=scalar|tensor"):
        code, out, err = tgc(*command, varied, "--out", varied[:5])
        assert (code, err) == (0, "")
        assert out.count("val_loss=") == 2


@pytest.mark.profile("ci")
@pytest.mark.parametrize("model", [TINY_BIGRAM, [*TINY, "--model-kind", "mini-gpt"]])
def test_a_sample_begins_with_the_prompt_and_repeats_with_its_seed(tgc: Tgc, model: list[str]):
    tgc("train", *model, "--out", "runs/r")
    code, first, _ = tgc("sample", "--prompt", "The", "--max-new-tokens", "20", "--seed", "7")
    assert code == 0
    assert first.startswith("The")
    assert len(first) > 5
    again = tgc("sample", "--checkpoint", "runs/r", "--prompt", "The", "--max-new-tokens", "20", "--seed", "7")
    assert again == (0, first, "")  # a seed that was given need not be said


@pytest.mark.profile("ci")
def test_each_token_is_on_the_screen_before_the_next_is_drawn(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    tgc("train", *TINY, "--tokenizer", "characters", "--out", "r")  # another's token may be half a character
    seen: list[str] = []
    drawn: list[int] = []

    class Screen(io.StringIO):
        def flush(self) -> None:
            seen.append(self.getvalue())

    original = engine.draw_tokens
    monkeypatch.setattr(engine, "draw_tokens", lambda *a, **k: drawn.append(len(seen)) or original(*a, **k))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Screen())
        run(["sample", "--checkpoint", "r", "--prompt", "T", "--max-new-tokens", "6"])
    assert drawn == sorted(set(drawn))  # something new was shown before each draw


@pytest.mark.profile("ci")
def test_a_sample_ends_before_a_stop_text(tgc: Tgc):
    tgc("train", *TINY, "--out", "r")
    options = ("--checkpoint", "r", "--prompt", "The", "--max-new-tokens", "20", "--seed", "7")
    _, whole, _ = tgc("sample", *options)
    stop = whole[5]
    code, text, _ = tgc("sample", *options, "--stop", "<>", "--stop", stop)
    assert (code, text) == (0, whole[: whole.index(stop, 3)] + "\n")
    code, _, error = tgc("sample", *options, "--stop", "")
    assert code == 2
    assert "--stop: expected a text" in error
    _, penalised, _ = tgc("sample", *options, "--repetition-penalty", "5", "--min-p", "0.9")
    assert penalised != whole


@pytest.mark.profile("ci")
def test_several_samples_are_told_apart(tgc: Tgc):
    tgc("train", *TINY, "--out", "r")
    _, out, _ = tgc("sample", "--checkpoint", "r", "--num-samples", "3", "--max-new-tokens", "5")
    assert re.findall(r"^--- sample \d ---$", out, re.MULTILINE) == ["--- sample 2 ---", "--- sample 3 ---"]


@pytest.mark.profile("ci")
def test_the_doctor_says_what_is_there_and_what_to_install(tgc: Tgc):
    code, out, _ = tgc("doctor")
    assert code == 0
    for word in ("Python", "NumPy", "BLAS", "threads", "CuPy", "NVIDIA driver", "GPU", "--backend auto"):
        assert word in out


def test_version_and_help_and_no_command(tgc: Tgc):
    assert tgc("--version")[1].startswith("tgc 0.")
    assert tgc("-V") == tgc("--version")
    assert "train" in tgc("--help")[1]
    assert tgc() == tgc("-h") == tgc("--help")
    assert tgc("train", "-h") == tgc("train", "--help")
    assert "--lr-schedule" not in tgc("train", "--help")[1]
    everything = tgc("train", "--help-all")[1]
    assert "--lr-schedule" in everything
    headings = [line for line in everything.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Run:", "Model:", "Data:", "Training:", "Objective:", "Options:"]
    assert "list[" not in everything


def test_the_help_of_train_fits_on_one_screen(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    """Of 100 by 40 characters, with nothing cut and the options in their groups."""
    monkeypatch.setenv("COLUMNS", "100")
    out = tgc("train", "--help")[1]
    lines = out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert "..." not in out
    assert sum(line.lstrip().startswith("-") for line in lines) == pytest.approx(24, abs=4)


@pytest.mark.profile("ci")
def test_an_ablation_leaves_a_table_and_goes_on_where_it_stopped(tgc: Tgc):
    command = ["ablate", *TINY_BIGRAM, "--vary", "norm,tied", "--seeds", "2"]
    code, out, err = tgc(*command)
    assert (code, err) == (0, "")
    folder = Path("ablations/bigram-tensor-norm-tied")
    assert {"results.jsonl", "results.csv", "results.md", "results.svg"} <= {path.name for path in folder.iterdir()}
    assert out.count("val_loss=") == 12
    assert re.search(
        r"^(layernorm|rmsnorm|none) +(on|off) +[\d.]+ +± [\d.]+ +[\d.]+ +2 +[\d,]+$",
        out,
        re.MULTILINE,
    )
    again = tgc(*command)[1]
    assert again.count("val_loss=") == 0  # nothing is left to train
    assert again.splitlines()[0].split()[:3] == ["norm", "tied", "val_loss"]


@pytest.mark.profile("ci")
def test_scalar_and_tensor_mode_sample_the_same_text(tgc: Tgc):
    tgc("train", *TINY, "--mode", "scalar", "--eval-tokens", "9", "--out", "r")
    texts = [
        tgc("sample", "--checkpoint", "r", "--mode", mode, "--max-new-tokens", "20", "--seed", "1")[1] for mode in MODES
    ]
    assert texts[0] == texts[1] != ""


MODES = ("scalar", "tensor")
MISTAKES = [
    ("train --nonsense 3", "no such option: --nonsense"),
    ("traain", "no such command 'traain'"),
    ("train --steps many", "'--steps'"),
    ("train --steps 0", "--steps: expected at least 1, received 0"),
    ("train --width 10 --heads 3", "--heads: expected a divisor of --width 10, received 3"),
    ("train --model llama", "--model: expected one of bigram, mini-gpt, nanochat, own, received 'llama'"),
    ("train --data nowhere.txt", "--data nowhere.txt: no such file or folder"),
    ("train --data empty.txt", "--data empty.txt: is empty; expected at least 650 characters of text"),
    ("train --data short.txt", "expected at least 650 tokens for --context 64"),
    ("train --warmup 9 --steps 8", "--warmup: expected at most --steps 8, received 9"),
    ("ablate --vary norm --norm none", "--norm: is varied; leave it out"),
    (
        "train --data latin.txt",
        "latin.txt: byte 0xff at offset 3 is not UTF-8; name the file's encoding",
    ),
    ("train --config nowhere.toml", "--config nowhere.toml: expected a TOML file or one of the presets"),
    ("train --config bad.toml", "--config bad.toml: unknown key 'stesp'; did you mean steps?"),
    ("train --resume --out nowhere", "nowhere: no such file or folder; tgc runs lists the runs"),
    ("train --resume --config bad.toml", "--config: a resumed run keeps its configuration"),
    ("train --resume", "no checkpoint below runs/; train a model first with: tgc train"),
    ("train --backend tpu", "--backend: expected one of auto, numpy, cupy, received 'tpu'"),
    ("sample", "no checkpoint below runs/; train a model first with: tgc train"),
    ("train --mode scalar --backend cupy", "--mode scalar: expected --backend numpy or auto, received cupy"),
    ("train --mode scalar --dropout 0.5", "--dropout: expected 0 in scalar mode, received 0.5"),
    (
        "train --mode scalar --width 512 --layers 9 --context 64",
        "minutes; choose smaller ones, or add --yes to continue",
    ),
    ("ablate", "missing option '--vary'"),
    ("ablate --vary nope", "--vary: expected options of tgc train, as in norm,tied or lr=0.001|0.01, received 'nope'"),
    ("ablate --vary lr", "--vary lr: expected values, as in lr=A|B, received none"),
    ("ablate --vary tied --seeds 0", "--seeds: expected at least 1, received 0"),
    ("ablate --vary tied --seed 3", "--seed: an ablation uses the seeds 1, 2, ..."),
    ("sample --checkpoint hollow", "hollow: no checkpoint there; train one with: tgc train --out hollow"),
    ("sample --checkpoint r --temperature -1", "--temperature: expected at least 0, received -1.0"),
    ("train --depth 2", "--depth: has no effect with --model mini-gpt; it needs --model nanochat"),
    ("import llama x.safetensors", "got unexpected extra argument(s) (x.safetensors)"),
    ("sample --checkpoint r --temperature nan", "--temperature: expected a finite number, received nan"),
    ("sample --checkpoint r --top-k 0", "--top-k: expected at least 1, received 0"),
    ("sample --checkpoint r --top-p 1.5", "--top-p: expected at most 1, received 1.5"),
    ("sample --checkpoint r --backend tpu", "--backend: expected one of auto, numpy, cupy, received 'tpu'"),
    ("sample --checkpoint r --prompt \u65e5", "character '\u65e5' (U+65E5) at offset 0 is not among"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(tgc: Tgc, command: str, message: str):
    Path("empty.txt").touch()
    Path("short.txt").write_text("too short")
    Path("latin.txt").write_bytes(b"caf\xff\xe9")
    Path("bad.toml").write_text("stesp = 3")
    Path("hollow").mkdir()
    if "--checkpoint r" in command:
        tgc("train", *TINY_BIGRAM, "--tokenizer", "characters", "--out", "r")
    before = sorted(Path().rglob("*"))
    code, out, err = tgc(*command.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("tgc: ")
    assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before  # nothing was left behind


@pytest.mark.profile("ci")
def test_training_says_why_it_is_slower_than_it_could_be(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    from tinygrad_chat.backend import registry

    original = registry.load_kernels

    def load_kernels(name: str) -> registry.Kernels:
        if name == "numba":
            raise OSError("libllvmlite.so: cannot be opened")
        return original(name)

    monkeypatch.setattr(registry, "load_kernels", load_kernels)
    lines = tgc("train", *TINY_BIGRAM)[1].splitlines()
    assert lines[0].startswith("slower than it could be: --kernels numba needs numba, which fails to import (libllvml")
    assert not tgc("train", *TINY_BIGRAM, "--kernels", "numpy")[1].startswith("slower")


def test_a_gpu_that_is_not_there_is_one_line_that_names_the_wheel(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    from tinygrad_chat.backend import cupy_backend, get_backend

    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(cupy_backend, "driver_cuda_version", lambda: 12040)
    monkeypatch.setattr(cupy_backend, "cupy_wheels", list)
    get_backend.cache_clear()
    code, _, err = tgc("train", "--backend", "cupy")
    assert code == 2
    assert err == "tgc: --backend cupy: CuPy is not installed; run: pip install 'tinygrad-chat[cuda12]'\n"


@pytest.mark.profile("ci")
def test_a_full_disk_is_one_line_and_exit_code_3(tgc: Tgc, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    tgc("train", *TINY, "--out", "r")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, _, err = tgc("train", "--resume", "--out", "r", "--steps", "8")
    assert code == 3
    assert "the disk is full" in err
    assert err.count("\n") == 1
    assert tgc("train", "--resume", "--out", "r", "--steps", "8")[0] == 0


@pytest.mark.profile("ci")
def test_a_run_that_diverges_is_one_line_and_exit_code_4(tgc: Tgc):
    options = ["--optimizer", "sgd", "--lr", "1e30", "--clip", "0", "--warmup", "0", "--out", "r"]
    code, _, err = tgc("train", *TINY, *options)
    assert code == 4
    assert re.fullmatch(r"tgc: step \d: the loss is .*lower --lr.*\n", err)


@pytest.mark.profile("ci")
@pytest.mark.parametrize(
    "command",
    [["train", *TINY], ["ablate", *TINY_BIGRAM, "--vary", "tied", "--seeds", "1"], ["profile", *TINY]],
    ids=lambda command: command[0],
)
def test_whatever_trains_is_refused_memory_that_is_not_there(
    tgc: Tgc, no_limit: list[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
):
    """Once, and after a model is built: before that, CUDA reserves more addresses than the machine has memory."""
    build = run_module.lead
    monkeypatch.setattr(run_module, "lead", lambda *given: no_limit.append("built") or build(*given))
    assert tgc(*command)[0] == 0
    assert no_limit[:2] == ["built", "limited"]
    assert no_limit.count("limited") == 1


@pytest.mark.profile("ci")
def test_help_imports_neither_numpy_nor_cupy():
    program = (
        "import sys; from tinygrad_chat.cli.app import run; code = run(['train', '--help']); "
        "assert not {'numpy', 'cupy', 'torch'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (1, 129)])
def test_ctrl_c_saves_a_checkpoint_and_the_run_goes_on_from_it(tmp_path: Path, number: int, code: int):
    tiny = [*TINY, "--kernels", "numpy"]  # with which a process starts twice as fast
    command = [sys.executable, "-m", "tinygrad_chat", "train", *tiny, "--steps", "1000000", "--eval-every", "1000000"]
    with subprocess.Popen(
        [*command, "--out", "r"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.startswith("step=3"):
                break
        process.send_signal(number)
        out, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == code
    assert err == ""
    steps = int(re.search(r"interrupted: ([\d,]+) steps", out)[1].replace(",", ""))  # pyright: ignore[reportOptionalSubscript]
    assert out.endswith(
        "\nnext:\n  tgc train --resume --out r\n  tgc sample --checkpoint r\n"
    )  # not the untrained step 0
    assert (tmp_path / f"r/checkpoints/step-{steps:06d}/weights.safetensors").exists()
    resume = [*command[:4], "--resume", "--out", "r", "--steps", str(steps + 1), "--json"]
    resumed = subprocess.run(resume, cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(resumed.stdout)["step"] == steps + 1


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_terminal_shows_a_bar_and_evaluations_but_no_log(tmp_path: Path):
    import pty

    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60", "LINES": "30"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tinygrad_chat", "train", *TINY, "--tokenizer", "characters"],
        cwd=tmp_path,
        stdout=terminal,
        env=environment,
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 9
    while time.monotonic() < deadline:
        try:
            piece = os.read(main, 4096)
        except OSError:  # how Linux reports the end of a terminal
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "100%" in text
    assert "step=2 loss=" in text
    assert "step=1 loss=" not in text
    assert "done: 4 steps" in text


@pytest.mark.profile("ci")
@pytest.mark.skipif(os.name != "posix", reason="shells of Windows close no streams")
def test_a_service_without_output_streams_trains(tmp_path: Path):
    command = [sys.executable, "-m", "tinygrad_chat", "train", *TINY, "--out", "r"]
    subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "r" / "outcome.json").read_bytes())["outcome"] == "finished"


@pytest.mark.profile("ci")
def test_a_folder_with_a_space_is_quoted_where_it_stands_in_a_command(tgc: Tgc):
    characters = ("--tokenizer", "characters")  # whose loss falls at once, so that the best checkpoint is a later one
    _, out, _ = tgc("train", *TINY, *characters, "--out", "my run")
    assert "tgc sample --checkpoint 'my run/checkpoints/step-" in out


def test_a_reader_that_has_gone_ends_with_141():
    """As in `tgc sample | head -c 5`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        ended = subprocess.run([sys.executable, "-m", "tinygrad_chat", "--help"], stdout=gone, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (141, b"")
