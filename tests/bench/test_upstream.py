"""The comparison with karpathy/nanochat: what it does where upstream is missing, slow or fails, and what it finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import turns, upstream
from bench.__main__ import main
from bench.peers import nanochat
from bench.upstream_worker import EAGER
from tests.upstream import NANOCHAT_DIR, needs_upstream


@pytest.mark.parametrize("folder", [[], ["--nanochat", "nowhere"]])
def test_without_a_checkout_one_line_says_what_to_do(
    folder: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv(nanochat.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "argv", ["bench", "upstream", *folder])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "checkout of karpathy/nanochat" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_of_another_commit_or_with_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=A", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *settings, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert "no checkout of karpathy/nanochat there" in str(nanochat.why_absent(str(tmp_path)))
    (tmp_path / "nanochat").mkdir()
    model = tmp_path / "nanochat" / "gpt.py"
    model.write_text("# a model\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "Begin")
    commit = git("rev-parse", "HEAD")
    absent = nanochat.why_absent(str(tmp_path))
    assert absent == (
        f"{tmp_path}: expected commit {nanochat.COMMIT}, received {commit}; "
        f"check that out, unchanged: git -C {tmp_path} checkout {nanochat.COMMIT[:7]}"
    )
    monkeypatch.setattr(nanochat, "COMMIT", commit)
    assert "commit" not in str(nanochat.why_absent(str(tmp_path)))
    model.write_text("# another model\n")
    assert f"received {commit}-dirty" in str(nanochat.why_absent(str(tmp_path)))


@pytest.mark.upstream
@pytest.mark.skipif(not NANOCHAT_DIR, reason=str(nanochat.why_absent(NANOCHAT_DIR)))
def test_the_checkout_that_is_named_is_the_one_that_was_analysed():
    assert nanochat.why_absent(NANOCHAT_DIR) is None


SLEEPER = "import json, sys, time\nfor line in sys.stdin: time.sleep(json.loads(line)); print(1, flush=True)"


@pytest.mark.parametrize("own_session", [True, False])
def test_a_worker_that_does_not_answer_in_time_is_ended(
    own_session: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = turns.Worker("sleeper", own_session=own_session)
    assert worker.ask(0, within=5) == 1
    with pytest.raises(turns.BenchmarkError, match=r"no answer within 0\.1 s"):
        worker.ask(60, within=0.1)
    worker.close()


@needs_upstream
@pytest.mark.upstream
@pytest.mark.parametrize("seed", upstream.SEEDS)
def test_on_ten_thousand_characters_both_sides_end_within_five_percent(seed: int):
    """Each from first weights of its own; the same batches, rates and schedules."""
    losses = upstream.small_losses(seed, NANOCHAT_DIR, failures := [])
    assert not failures
    assert losses[turns.OURS] == pytest.approx(losses[EAGER], rel=0.05)
    assert losses[EAGER] < 3.2  # both have learnt something


@needs_upstream
@pytest.mark.upstream
def test_an_engine_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    engines = {name: upstream.ENGINES[name] for name in (turns.OURS, EAGER)}
    monkeypatch.setattr(upstream, "ENGINES", engines | {"an unknown engine": None})
    tiny = {"depth": 1, "context": 32, "batch_size": 2, "width": 32, "heads": 1}
    monkeypatch.setattr(upstream, "ON_THE_CPU", (upstream.Comparison("tiny", "cpu", tiny, noise=0.01),))
    monkeypatch.setattr(upstream, "SEEDS", (1,))
    monkeypatch.setattr(upstream, "SMALL", {**upstream.SMALL, "steps": 3, "warmup": 1})
    command = ["bench", "upstream", "--nanochat", NANOCHAT_DIR, "--steps", "4", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--results", str(tmp_path)])
    main()
    result: dict[str, Any] = json.loads((tmp_path / "upstream.json").read_text())
    assert [failure["engine"] for failure in result["failures"]] == ["an unknown engine"]
    ours, theirs = result["runs"][0]["engines"]
    assert (ours["engine"], theirs["engine"]) == (turns.OURS, EAGER)
    assert theirs["largest_difference_of_losses"] < 1e-4
    assert "Failed: an unknown engine on tiny, while asked to ready" in (tmp_path / "upstream.md").read_text()
    assert (tmp_path / "upstream.png").stat().st_size > 10_000
