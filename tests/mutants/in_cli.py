"""Faults in what a chat shows and does."""

from __future__ import annotations

FAULTS = {
    "cli/markdown.py": {
        "a power begins bold text": ('not (self._before.isalnum() or self._before == "*")', "True"),
        "a sign that nothing closes holds the text": ("and len(self._held) <= LONGEST_SPAN", ""),
        "signs within code lines are taken for such": (
            "if self._style == BLOCK:\n            end",
            "if False:\n            end",
        ),
    },
    "cli/wrapping.py": {
        "a word begins where it does not fit": (
            "for text, _ in self._word) > self._width",
            "for text, _ in self._word) > 2 * self._width",
        ),
    },
    "cli/chat_loop.py": {
        "two slashes are a command": ('not text.startswith("//")', "True"),
        "Ctrl-C ends the chat at once": ("if pressed:", "if True:"),
    },
    "cli/chat_session.py": {
        "Ctrl-C stops no answer": ("if stopped and self.chat.request:", "if False:"),
    },
    "cli/chat_commands.py": {
        "a file is written over unasked": ("if is_there(path, follow=True) and", "if False and"),
    },
    "cli/chat_runs.py": {
        "the newest run answers, whatever it was taught": ("if saved.taught_to_chat:", "if True:"),
        "any size is as good as the one asked for": ("settings[name] == value or", "True or"),
    },
    "cli/chat_training.py": {
        "the questions are asked at every step": ("self._next = self._clock() + EVERY", "pass"),
    },
}
