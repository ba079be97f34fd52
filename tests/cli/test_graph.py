"""`tgc graph` as a person meets it."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drawing.graphs import parsed, text_of
from tinygrad_chat.cli.app import run

Tgc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tgc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tgc:
    """Run `tgc graph` in an empty folder; return its exit code and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["graph", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_formula_becomes_a_page_and_a_few_lines(tgc: Tgc):
    code, out, err = tgc("tanh(a*b + c)", "--set", "a=2", "--set", "b=-3", "--set", "c=6.5")
    slope = 1 - math.tanh(0.5) ** 2
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == [
        f"tanh(a*b + c) = {math.tanh(0.5):.4g}",
        f"  a = 2    gradient {-3 * slope:.4g}",
        f"  b = -3   gradient {2 * slope:.4g}",
        f"  c = 6.5  gradient {slope:.4g}",
    ]
    assert "wrote graph.html" in out
    assert "<title>tanh(a*b + c)</title>" in Path("graph.html").read_text(encoding="utf-8")


def test_the_suffix_decides_what_is_drawn(tgc: Tgc):
    assert tgc("a*b", "--out", "picture.svg")[0] == 0
    nodes, edges = parsed(Path("picture.svg").read_text(encoding="utf-8"))
    assert [text_of(node, "title") for node in nodes.values()] == ["a", "b", "\N{MULTIPLICATION SIGN}"]
    assert len(edges) == 2
    assert [path.name for path in Path().iterdir()] == ["picture.svg"]


def test_variables_that_are_not_set_get_different_numbers_in_order(tgc: Tgc):
    _, out, _ = tgc("z + a*b/c", "--set", "a=2")
    assert out.startswith("not set, so chosen here: z=1 b=3 c=4; change with --set z=1\n")
    assert "chosen here" not in tgc("a", "--set", "a=2")[1]


FORMULAS = {
    "a*b + c - a/b": lambda a, b, c: a * b + c - a / b,
    "-a**2 + (-a)**2 * -3": lambda a, b, c: -(a**2) + (-a) ** 2 * -3,
    "exp(-b) * log(c) + sqrt(a)": lambda a, b, c: math.exp(-b) * math.log(c) + math.sqrt(a),
    "relu(a - c) + relu(c - a) + tanh(1e-3)": lambda a, b, c: c - a + math.tanh(1e-3),
    "  2 ** -b  ": lambda a, b, c: 2**-b,
    "(a +\n b)": lambda a, b, c: a + b,
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_means_what_it_means_in_python(tgc: Tgc, formula: str):
    numbers = {"a": 1.5, "b": 2.5, "c": 3.5}
    settings = [
        f"--set={name}={number}" for name, number in numbers.items() if name in re.findall(r"\b[abc]\b", formula)
    ]
    code, out, _ = tgc(*settings, "--", formula)
    assert code == 0
    assert out.splitlines()[0].endswith(f" = {FORMULAS[formula](**numbers):.4g}")


@pytest.mark.parametrize(("model", "last_op"), [("bigram", "linear"), ("mini-gpt", "attention")])
def test_a_model_is_drawn_with_its_parameters_by_name(tgc: Tgc, model: str, last_op: str):
    code, out, err = tgc("--model", model, "--out", "g.svg")
    assert (code, err) == (0, "")
    assert re.search(rf"^one training step of {model} = 1\.[56]\d*$", out, re.MULTILINE)
    titles = [text_of(node, "title") for node in parsed(Path("g.svg").read_text(encoding="utf-8"))[0].values()]
    assert {"token_embedding.weight", last_op, "cross_entropy"} <= set(titles)
    assert "leaf" not in titles
    assert ("attention.query.weight" in titles) == (model == "mini-gpt")


def test_a_model_can_be_stepped_through(tgc: Tgc):
    assert tgc("--model", "mini-gpt")[0] == 0
    page = Path("graph.html").read_text(encoding="utf-8")
    assert '"sentence": "cross_entropy 28: d_out = 1 \\u2192 \\u2016' in page


NOT_ALLOWED = [
    ("__import__('os').getcwd()", "\"__import__('os').getcwd()\""),
    ("a.real", "'a.real'"),
    ("a[0]", "'a[0]'"),
    ("a // b", "'a // b'"),
    ("a @ b", "'a @ b'"),
    ("+a", "'+a'"),
    ("a < b", "'a < b'"),
    ("a if b else c", "'a if b else c'"),
    ("(lambda: 1)()", "'(lambda: 1)()'"),
    ("exp(a, b)", "'exp(a, b)'"),
    ("exp(x=a)", "'exp(x=a)'"),
    ("exp(*a)", "'*a'"),
    ("sin(a)", "'sin(a)'"),
    ("exp + 1", "'exp'"),
    ("'x' * 3", "\"'x'\""),
    ("True + 1", "'True'"),
    ("1j * a", "'1j'"),
    ("(a := 3)", "'a := 3'"),
    ("[a, b]", "'[a, b]'"),
]


@pytest.mark.parametrize(("formula", "quoted"), NOT_ALLOWED)
def test_a_formula_is_never_executed_and_what_is_not_allowed_is_named(tgc: Tgc, formula: str, quoted: str):
    code, out, err = tgc(formula)
    assert (code, out) == (2, "")
    assert err == (
        f"tgc: expression: {quoted} is not allowed; expected names, numbers, + - * / ** and exp log sqrt tanh relu\n"
    )
    assert list(Path().iterdir()) == []


MISTAKES = [
    ([], "graph: expected either a formula such as 'tanh(a*b + c)' or --model"),
    (["a", "--model", "bigram"], "graph: expected either a formula such as 'tanh(a*b + c)' or --model"),
    (["--model", "llama"], "--model: expected one of bigram, mini-gpt, nanochat, received 'llama'"),
    (["--model", "bigram", "--set", "a=1"], "--set: only a formula has variables, --model has none"),
    (["a +"], "expression: expected a formula such as 'tanh(a*b + c)' (invalid syntax)"),
    ([""], "expression: expected a formula such as 'tanh(a*b + c)' (invalid syntax)"),
    (["a = 3"], "expression: expected a formula such as 'tanh(a*b + c)' (invalid syntax"),
    (["(" * 5000 + "a" + ")" * 5000], "expression: expected a formula"),
    (["+".join("a" * 300)], "expression: expected at most 400 names, numbers and operations, received 599"),
    (["log(a - 1)"], "expression: 'log(a - 1)' is not a finite real number at 0; choose other numbers"),
    (["log(-2)"], "expression: 'log(-2)' is not a finite real number at -2"),
    (["a / (b - 2)"], "expression: 'a / (b - 2)' is not a finite real number at 1 and 0"),
    (["0 ** -a"], "expression: '0 ** -a' is not a finite real number at 0 and -1"),
    (["(a - 3) ** 0.5"], "expression: '(a - 3) ** 0.5' is not a finite real number at -2 and 0.5"),
    (["exp(1000 * a)"], "expression: 'exp(1000 * a)' is not a finite real number at 1000"),
    (["1e300 * 1e300"], "expression: '1e300 * 1e300' is not a finite real number at 1e+300 and 1e+300"),
    (["1e999"], "expression: '1e999' is not a finite real number; choose other numbers"),
    (["9" * 400], "is not a finite real number; choose other numbers"),
    (["sqrt(a - 1)"], "expression: a gradient is not finite here; choose other numbers"),
    (["1 / (a * 1e-200)"], "expression: a gradient is not finite here; choose other numbers"),
    (["a * 1e-300 * 1e300 * 1e300"], "expression: a gradient is not finite here; choose other numbers"),
    (["a", "--set", "b=1"], "--set: b is not in the formula, which has a"),
    (["3", "--set", "b=1"], "--set: b is not in the formula, which has no names"),
    (["a", "--set", "a"], "--set: expected NAME=NUMBER such as a=2, received 'a'"),
    (["a", "--set", "a=two"], "--set: expected NAME=NUMBER such as a=2, received 'a=two'"),
    (["a", "--set", "a=nan"], "--set: expected NAME=NUMBER such as a=2, received 'a=nan'"),
    (["a", "--set", "=2"], "--set: expected NAME=NUMBER such as a=2, received '=2'"),
    (["a", "--set", "a=1", "--set", "a=2"], "--set: a is set twice"),
    (["a", "--out", "a.png"], "--out: expected a name that ends in .html or .svg, received 'a.png'"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(given)[:40] for given, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(tgc: Tgc, arguments: list[str], message: str):
    code, out, err = tgc(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("tgc: ")
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line_and_exit_code_3(tgc: Tgc):
    code, out, err = tgc("a", "--out", "nowhere/graph.svg")
    assert (code, out) == (3, "")
    assert (
        err
        == f"tgc: {Path('nowhere/graph.svg')}: cannot be written: No such file or directory; choose another folder\n"
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line_and_exit_code_3(tgc: Tgc):
    Path("locked").mkdir(mode=0o500)
    code, _, err = tgc("a", "--out", "locked/graph.svg")
    assert code == 3
    assert "no permission" in err


@pytest.mark.profile("ci")
def test_help_imports_no_numpy_and_a_value_from_the_package_can_be_drawn():
    program = (
        "import sys; from tinygrad_chat.cli.app import run; code = run(['graph', '--help']); "
        "assert 'numpy' not in sys.modules; from tinygrad_chat import Value; "
        "assert Value(1.0)._repr_svg_().startswith('<svg'); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
