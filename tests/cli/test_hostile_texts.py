"""No text of a stranger's speaks to the terminal: each command, with such a text in each place that it can come from.

What each scenario shows is looked at on a terminal, in a pipe, and with the escaping taken out: then it must be found.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.chatting import ScriptedModel, save_run
from tests.cli.conftest import TINY_BIGRAM
from tests.cli.hostile import HOSTILE, MARK, NAME, Watched, damage_checkpoints, write_received
from tests.experiments.processes import stand_ins
from tests.planning.test_plan import MEASURED
from tests.runs.test_hostile_checkpoints import resign
from tinygrad_chat import cli, formatting
from tinygrad_chat.cli.app import COMMANDS
from tinygrad_chat.experiments.planned import OUTPUT
from tinygrad_chat.inference import remote
from tinygrad_chat.machine.limits import Limits
from tinygrad_chat.planning import plan
from tinygrad_chat.profiling import profile
from tinygrad_chat.runs.checkpoint import WEIGHTS
from tinygrad_chat.text.data import open_data
from tinygrad_chat.tracking.opening import TRACKERS
from tinygrad_chat.tracking.tracker import Tracker

RUN = f"runs/{NAME}"
TEXT = f"{NAME}.txt"
TRAIN = ("train", *TINY_BIGRAM, "--data", TEXT)
IMPORTED = {"n_layer": 1, "n_head": 2, "n_kv_head": 2, "n_embd": 32, "sequence_len": 8, "window_pattern": "L"}

Prepare = Callable[[pytest.MonkeyPatch], Any]


@dataclass(frozen=True)
class Scenario:
    """A command, what stands ready for it, and whether the text would arrive raw but for the escaping: not where it is
    quoted by Python or JSON before."""

    source: str
    arguments: tuple[str, ...]
    prepare: Prepare = lambda patch: None
    raw: bool = True


def write(name: str, content: str | bytes) -> Prepare:
    data = content.encode() if isinstance(content, str) else content
    return lambda patch: Path(name).write_bytes(data)


def toml_text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


class Speaking(Tracker):
    """A tracker whose library says such things."""

    library = "json"

    def __init__(self, run: Any, identity: str | None) -> None:
        self.identity, self.how_to_look = "1", HOSTILE

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for text in (HOSTILE, HOSTILE.replace("\r", "")):  # rich, above a bar, drops what stands before it
            print(text, file=sys.stderr)  # as a library does, past all that is ours
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"two\nlines of {HOSTILE}", stacklevel=1)
        raise RuntimeError(HOSTILE)

    def show_text(self, step: int, text: str) -> None:
        pass

    def close(self, *, failed: bool) -> None:
        pass


def speaking_tracker(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(TRACKERS, "tensorboard", Speaking)


def speaking_device(patch: pytest.MonkeyPatch) -> None:
    environment = {"backend": "numpy", "device": HOSTILE, "numpy": "2", "blas": []}
    measured = dataclasses.replace(MEASURED, environment=environment)
    patch.setattr(plan, "measure", lambda *arguments, **options: measured)


def known_limits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(profile, "measure_limits", lambda compute: Limits(product_rate=1e9, bandwidth=1e9))


def speaking_library(patch: pytest.MonkeyPatch) -> None:
    blas = [{"library": HOSTILE, "version": "1", "kernels": "none", "threads": 1}]
    patch.setattr("tinygrad_chat.machine.environment.describe_blas", lambda: blas)


def weights_of_nanochat(*, key: str = "x", config: str | None = None) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch) -> None:
        found = json.dumps({**IMPORTED, "vocab_size": 9}) if config is None else config
        save_file({key: np.zeros((2, 2), np.float32)}, f"{NAME}.safetensors", {"model_config": found})

    return prepare


def huggingface_folder(config: Mapping[str, Any], **files: Any) -> Prepare:
    def prepare(patch: pytest.MonkeyPatch) -> None:
        Path(NAME).mkdir(exist_ok=True)
        for name, content in {"config": config, **files}.items():
            Path(NAME, f"{name}.json").write_text(json.dumps(content))

    return prepare


def shards(places: Mapping[str, str]) -> Prepare:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 9, **sizes}
    return huggingface_folder(config, **{"model.safetensors.index": {"weight_map": places}})


def hostile_gguf() -> bytes:
    """A file with a setting of that name, twice."""
    name = HOSTILE.encode()
    key = len(name).to_bytes(8, "little") + name + (7).to_bytes(4, "little") + b"\1"
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (2).to_bytes(8, "little") + 2 * key


def strange_tensor(patch: pytest.MonkeyPatch) -> None:
    for checkpoint in (Path(RUN) / "checkpoints").iterdir():
        arrays = load_file(checkpoint / WEIGHTS)
        save_file({**arrays, HOSTILE: np.zeros(2, np.float32)}, checkpoint / WEIGHTS)
        resign(checkpoint)


def strange_state(patch: pytest.MonkeyPatch) -> None:
    for checkpoint in (Path(RUN) / "checkpoints").iterdir():
        state = json.loads((checkpoint / "state.json").read_bytes())
        state["config"]["recipe"][HOSTILE] = 1
        (checkpoint / "state.json").write_text(json.dumps(state))
        resign(checkpoint)


def damaged(patch: pytest.MonkeyPatch) -> None:
    damage_checkpoints(Path(RUN))


def a_folder_of_that_name(patch: pytest.MonkeyPatch) -> None:
    Path(RUN, "no run").mkdir(parents=True)
    Path("runs", f"{NAME} notes").mkdir()


def strange_cache(patch: pytest.MonkeyPatch) -> None:
    Path("a file").write_text("")
    patch.setenv("TINYGRAD_CHAT_CACHE", f"a file/{NAME}")


def strange_variable(patch: pytest.MonkeyPatch) -> None:
    patch.setenv(f"NUMBA_{NAME}", "1")
    patch.setattr("tinygrad_chat.backend.registry.load_kernels", _fail)


def _fail(name: str) -> Any:
    raise ImportError(HOSTILE)


def a_kept_text(patch: pytest.MonkeyPatch) -> None:
    open_data(TEXT, "bytes")


def another_run(patch: pytest.MonkeyPatch) -> None:
    shutil.copytree(RUN, "runs/again")


A_CHAT = json.dumps({"input": HOSTILE, "output": HOSTILE}) + "\n"


def a_model_that_chats(patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(RUN)
    save_run(Path(RUN))
    ScriptedModel({"a": HOSTILE}).stand_in(patch)


def a_server_that_speaks(patch: pytest.MonkeyPatch) -> None:
    said = remote._Choice(delta=remote._Delta(content=HOSTILE), finish_reason="stop")
    patch.setattr(remote.RemoteServer, "first_model", lambda server: HOSTILE)
    patch.setattr(remote.RemoteServer, "stream", lambda *asked: (chunk for chunk in [remote._Chunk(choices=[said])]))


def a_process_that_speaks(patch: pytest.MonkeyPatch) -> None:
    def speak(path: Path) -> bool:
        path.mkdir(parents=True, exist_ok=True)
        (path / OUTPUT).write_text(HOSTILE.replace("\n", " "))
        return True

    stand_ins(patch).behave = {f"tied={tied},seed=1": speak for tied in ("on", "off")}


ASKS = """
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation

class Asks:
    name, about, chance = "asks", "", 0.0

    def problems(self, count, seed):
        yield Problem(Conversation.of("a"), "b", lambda said: False)
"""


def a_model_that_is_asked(patch: pytest.MonkeyPatch) -> None:
    a_model_that_chats(patch)
    Path("a.py").write_text(ASKS)


SCENARIOS = [
    Scenario("the names of its text and its folder", (*TRAIN, "--out", "runs/x" + NAME)),
    Scenario("what the model writes", (*TRAIN, "--verbose", "--out", "out")),
    Scenario("the name of its text, in JSON", (*TRAIN, "--json", "--out", "out" + NAME)),
    Scenario("a preset's name", ("train", "--config", NAME)),
    Scenario("a key of a TOML file", ("train", "--config", "a.toml"), write("a.toml", f"{toml_text(HOSTILE)} = 1")),
    Scenario(
        "a value of a TOML file",
        ("train", "--config", "a.toml"),
        write("a.toml", f"tokenizer = {toml_text(HOSTILE)}"),
        raw=False,
    ),
    Scenario("a table of a TOML file", ("plan", "--config", "a.toml"), write("a.toml", f"[{toml_text(HOSTILE)}]\n")),
    Scenario("an option's value", ("train", "--tokenizer", HOSTILE), raw=False),
    Scenario("an option", (f"--{HOSTILE}",)),
    Scenario("a command", (HOSTILE,), raw=False),
    Scenario("a tracker", (*TRAIN, "--track", "tensorboard", "--out", "out"), speaking_tracker),
    Scenario("the path of a damaged checkpoint", ("train", "--resume", "--out", RUN, "--steps", "9"), damaged),
    Scenario("a checkpoint's metadata", ("train", "--resume", "--out", RUN, "--steps", "9"), strange_state),
    Scenario(
        "a key of a row",
        ("train", *TINY_BIGRAM, "--data", "a.jsonl"),
        write("a.jsonl", json.dumps({HOSTILE: "a text"}) + "\n"),
    ),
    Scenario("the cache's name", (*TRAIN, "--out", "out"), strange_cache),
    Scenario("a variable of the environment", (*TRAIN, "--kernels", "numba"), strange_variable),
    Scenario("a device", ("plan", *TINY_BIGRAM, "--data", TEXT), speaking_device),
    Scenario("the name of a text", ("plan", "--data", f"no {NAME}")),
    Scenario("the name of a text", ("profile", "--data", f"no {NAME}")),
    Scenario(
        "the name of a trace",
        ("profile", *TINY_BIGRAM, "--data", TEXT, "--profile-steps", "1", "--trace", f"{NAME}.json"),
        known_limits,
    ),
    Scenario("what the model writes", ("sample", "--checkpoint", RUN, "--prompt", HOSTILE.replace("\r", ""))),
    Scenario("the path of a checkpoint", ("sample", "--checkpoint", RUN), damaged),
    Scenario("a tensor's name", ("sample", "--checkpoint", RUN), strange_tensor),
    Scenario("what the model writes", ("chat", "--checkpoint", RUN, "-p", "a"), a_model_that_chats),
    Scenario("the name of a run", ("chat", "--checkpoint", f"no {NAME}", "-p", "a")),
    Scenario("the name of a run", ("chat", "--checkpoint", RUN, "-p", "a")),
    Scenario("what a conversation says", ("chat", "render", "a.jsonl"), write("a.jsonl", A_CHAT)),
    Scenario("a size", ("chat", "--config", HOSTILE, "-p", "a"), raw=False),
    Scenario("a server's address", ("chat", "--url", HOSTILE, "-p", "a"), raw=False),
    Scenario("what a server says", ("chat", "--url", "http://a", "-p", "a"), a_server_that_speaks),
    Scenario("the name of a run", ("serve", f"no {NAME}")),
    Scenario("an address", ("serve", RUN, "--host", HOSTILE, "--api-key", "a"), raw=False),
    Scenario("the name of a text", ("eval", RUN, "--data", f"no {NAME}")),
    Scenario("the name of a run", ("eval", NAME, "plain")),
    Scenario("the name of a task", ("eval", RUN, "--task", f"no {NAME}")),
    Scenario("what a task says", ("eval", RUN, "--task", "a.py"), write("a.py", f"raise ValueError({HOSTILE!r})")),
    Scenario("what the model answers", ("eval", RUN, "--task", "a.py", "--examples", "1"), a_model_that_is_asked),
    Scenario("the names of runs, in JSON", ("eval", NAME, "--json"), raw=False),
    Scenario("the name of its file", ("tokenizer", "train", TEXT, "--vocabulary", "265", "--out", f"{NAME}.json")),
    Scenario("the name of a tokenizer", ("tokenizer", "show", "a", "--tokenizer", f"no {NAME}")),
    Scenario("the name of a tokenizer", ("tokenizer", "compare", "bytes", f"no {NAME}", "--data", TEXT)),
    Scenario("what a text says", ("data", "show", TEXT)),
    Scenario("the names of texts", ("data", "list"), a_kept_text),
    Scenario("the names of runs", ("runs",)),
    Scenario("the names of runs, in JSON", ("runs", "--json"), raw=False),
    Scenario("the names of folders", ("runs",), a_folder_of_that_name),
    Scenario("a folder's name", ("runs", f"no {NAME}")),
    Scenario("a value of outcome.json", ("runs",), another_run),
    Scenario("a damaged config.toml", ("runs",), write(f"{RUN}/config.toml", f"{toml_text(HOSTILE)} = 1")),
    Scenario("a run's name", ("report", RUN)),
    Scenario("a run's name", ("report", f"no {NAME}")),
    Scenario("the names of runs", ("compare", NAME, "plain")),
    Scenario("the name of its folder", ("compare", "again", "plain", "--out", NAME), another_run),
    Scenario("a setting", ("ablate", "--vary", HOSTILE), raw=False),
    Scenario(
        "the name of a text",
        ("ablate", *TINY_BIGRAM, "--eval-tokens", "9", "--seeds", "1", "--vary", f"data={TEXT}", "--out", NAME),
        lambda patch: Path(TEXT).write_text("abc " * 99),
    ),
    Scenario(
        "what a process of it says",
        ("ablate", *TINY_BIGRAM, "--seeds", "1", "--vary", "tied", "--jobs", "1", "--out", "out"),
        a_process_that_speaks,
    ),
    Scenario("the name of its picture", ("graph", "a*b", "--out", f"{NAME}.svg")),
    Scenario("a variable", ("graph", "a*b", "--set", f"{HOSTILE}=1"), raw=False),
    Scenario("a tensor's name", ("inspect", RUN, "--tensors"), strange_tensor),
    Scenario("a tensor's name, in JSON", ("inspect", RUN, "--tensors", "--json"), strange_tensor, raw=False),
    Scenario("the name of a run", ("inspect", f"no {NAME}")),
    Scenario("a file's name", ("import", f"{NAME}.safetensors")),
    Scenario("a tensor's name", ("import", f"{NAME}.safetensors"), weights_of_nanochat(key=f"x.0.{HOSTILE}")),
    Scenario("model_config", ("import", f"{NAME}.safetensors"), weights_of_nanochat(config=f'"{MARK}')),
    Scenario("a model's name", ("import", HOSTILE)),
    Scenario("an architecture", ("import", NAME), huggingface_folder({"architectures": [HOSTILE]}), raw=False),
    Scenario("a shard's name", ("import", NAME), shards({"x": HOSTILE}), raw=False),
    Scenario("a setting's name", ("import", f"{NAME}.gguf"), write(f"{NAME}.gguf", hostile_gguf())),
    Scenario("a file's name", ("export", "nanochat", RUN, TEXT)),
    Scenario("another program's name", ("export", HOSTILE, "a", "b"), raw=False),
    Scenario("the path of a checkpoint", ("export", "nanochat", RUN, "a"), damaged),
    Scenario("a library", ("doctor",), speaking_library),
]
NAMED = [
    pytest.param(each, id=f"{each.arguments[0] if each.arguments[0] in COMMANDS else 'tgc'}: {each.source}")
    for each in SCENARIOS
]
RAW = [each for each, scenario in zip(NAMED, SCENARIOS, strict=True) if scenario.raw]


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a stranger may hand it over."""
    folder = tmp_path_factory.mktemp("received")
    write_received(folder)
    return folder


@pytest.fixture
def here(received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in such a folder, on a terminal that has room."""
    shutil.copytree(received, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "2000", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, kind: str) -> Watched:
    scenario.prepare(monkeypatch)
    watched = Watched(kind)
    watched.run(monkeypatch, scenario.arguments)
    assert MARK in watched.shown
    return watched


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", ["terminal", "pipe"])
@pytest.mark.parametrize("scenario", NAMED)
def test_a_stranger_s_text_arrives_as_letters(scenario: Scenario, kind: str, monkeypatch: pytest.MonkeyPatch):
    assert shown(scenario, monkeypatch, kind).faults() == []


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("scenario", RAW)
def test_without_the_escaping_it_would_be_found(scenario: Scenario, monkeypatch: pytest.MonkeyPatch):
    scenario.prepare(monkeypatch)
    watched = Watched("pipe")
    with monkeypatch.context() as patch:
        patch.setattr(formatting, "NOT_PRINTABLE", re.compile("(?!)"))
        watched.run(patch, scenario.arguments)
    assert watched.faults()


def test_there_is_a_scenario_for_each_command():
    assert {each.arguments[0] for each in SCENARIOS} >= COMMANDS.keys()


PAST_THE_ESCAPING = re.compile(r"\bas_is\(|\bConsole\(|std(?:out|err)\.buffer|os\.write\(|__std(?:out|err)__|\bsecho\(")


def test_few_files_know_a_way_past_the_escaping():
    found = {path.name for path in Path(cli.__file__).parent.glob("*.py") if PAST_THE_ESCAPING.search(path.read_text())}
    ours = {"streams.py", "console.py", "display.py", "ablation_display.py"}  # the escaping itself, and rich's bars
    constants = {"app.py", "interruption.py"}  # a colour, and what a signal says
    assert found == {*ours, *constants}


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("here")
def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch):
    speaking_tracker(monkeypatch)
    watched = Watched("pipe")
    assert watched.run(monkeypatch, (*TRAIN, "--track", "tensorboard", "--out", "out")) == 0
    assert f"\ntgc: warning: two lines of [red]{MARK}" in watched.shown


WRITTEN = [
    (*TRAIN, "--out", RUN + "2"),
    ("report", RUN),
    ("compare", NAME, "plain"),
    ("ablate", *TINY_BIGRAM, "--seeds", "1", "--vary", f"data={TEXT}", "--out", "out"),
    ("graph", "a*b", "--out", f"{NAME}.svg"),
    ("graph", "a*b", "--out", f"{NAME}.html"),
]
READABLE = {".md", ".html", ".svg", ".toml", ".json", ".jsonl", ".csv"}


@pytest.mark.profile("ci")
@pytest.mark.usefixtures("here")
def test_what_is_written_for_people_can_be_printed(monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    for arguments in WRITTEN:
        assert Watched("pipe").run(monkeypatch, arguments) == 0
    written = [path for path in Path().rglob("*") if path.stat().st_mtime_ns != before.get(path) and path.is_file()]
    texts = {path: path.read_text().replace("\x7f", "") for path in written if path.suffix in READABLE}  # JSON has DEL
    assert {path.suffix for path in texts} == READABLE
    marked = {path.name for path, text in texts.items() if MARK in text}
    assert marked >= {"report.md", "report.html", "config.toml", "results.md", "results.csv"}
    assert [str(path) for path, text in texts.items() if formatting.NOT_PRINTABLE.search(text)] == []


FLOOD = "x" * 10**6
FLOODS = [
    Scenario("a key of a TOML file", ("train", "--config", "a.toml"), write("a.toml", f"{FLOOD} = 1")),
    Scenario("a value of a TOML file", ("train", "--config", "a.toml"), write("a.toml", f"tokenizer = '{FLOOD}'")),
    Scenario("a TOML file", ("train", "--config", "a.toml"), write("a.toml", FLOOD)),
    Scenario("an option", ("train", f"--{FLOOD[:100_000]}")),
    Scenario("a tensor's name", ("import", f"{NAME}.safetensors"), weights_of_nanochat(key=FLOOD)),
    Scenario(
        "10,000 layers",
        ("import", f"{NAME}.safetensors"),
        weights_of_nanochat(config=json.dumps({**IMPORTED, "n_layer": 10_000, "vocab_size": 9})),
    ),
    Scenario("model_config", ("import", f"{NAME}.safetensors"), weights_of_nanochat(config=FLOOD)),
    Scenario("config.toml", ("runs",), write(f"{RUN}/config.toml", f"{FLOOD} = 1")),
    Scenario(
        "outcome.json",
        ("runs",),
        write(f"{RUN}/outcome.json", json.dumps({"outcome": "failed", "step": 4, "seconds": 1.0, "reason": FLOOD})),
    ),
    Scenario("a key of a row", ("train", "--data", "a.jsonl"), write("a.jsonl", json.dumps({FLOOD: "a"}) + "\n")),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("scenario", FLOODS, ids=[f"{each.arguments[0]}: {each.source}" for each in FLOODS])
def test_a_message_is_one_line_that_is_not_too_long(scenario: Scenario, monkeypatch: pytest.MonkeyPatch):
    scenario.prepare(monkeypatch)
    watched = Watched("pipe")
    code = watched.run(monkeypatch, scenario.arguments)
    lines = watched.shown.splitlines()
    assert max(map(len, lines)) <= formatting.LONGEST_LINE
    assert code == 0 or len(lines) == 1
