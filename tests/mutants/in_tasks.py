"""Faults in what models are asked, and in how it is scored."""

from __future__ import annotations

FAULTS = {
    "evaluation/answers.py": {
        "long choices are worse": ("/ [len(row) - start for row in rows]", "/ 1"),
        "the question counts, too": (
            "targets[index, start : len(row)] = row[start:]",
            "targets[index, : len(row)] = row",
        ),
        "answers are those of other problems": (
            "zip(others, written, strict=True)",
            "zip(others, written[::-1], strict=True)",
        ),
        "programs are always run": ("and not run_programs:", "and False:"),
    },
    "runs/scores.py": {
        "guessing is worth something": ("(self.accuracy - self.chance) / (1", "self.accuracy / (1"),
        "results of other tasks are forgotten": ("by_step.setdefault(step, {}).update(", "by_step[step] = dict("),
    },
    "tasks/running.py": {
        "a program that just ends has passed": (
            "process.returncode == 0 and said.read() == word.encode()",
            "process.returncode == 0",
        ),
        "a program may write": ('or event == "open" and arguments[2] & 3:', ":"),
    },
    "inference/answers.py": {
        "questions are those of the first text alone": ("max(1, most // len(texts))", "most"),
        "what begins nowhere is a question": ("is None else starts", "is None else starts * 0"),
    },
}
