"""Faults in the corpora that are made on the spot, and in what a model can say of itself."""

from __future__ import annotations

FAULTS = {
    "text/embedded/corpus.py": {
        "nothing is held out": ("% share == 0", "% share == share"),
    },
    "text/embedded/documented.py": {
        "self is an argument": ("names[1:] if skip_first", "names if skip_first"),
        "a sentence goes on behind its end": ("sentence = text[: end.start()]", "sentence = text[: end.start() + 9]"),
    },
    "text/embedded/made_up.py": {
        "what is documented counts as made up": ("name.lower() not in known_names() and ", ""),
        "tasks ask of names that are trained on": ("is_held_out(name) == held_out", "True"),
    },
    "text/embedded/phrasings.py": {
        "tasks ask as training does": ("if self.held_out:", "if False:"),
        "what stands within another is what is asked": ('if rest and first.lower() in words("orders"):', "if False:"),
        "topics of tasks are trained on": ("if held_out is None or is_held_out(word) == held_out", ""),
    },
    "text/embedded/questions.py": {
        "arguments are counted from the last": ("known.arguments[number]", "known.arguments[-1 - number]"),
        "a name alone means the last that has it": ("in reversed(every_documented())", "in every_documented()"),
        "a name alone means several things": ("_by_last_name()[known.last_name] is known", "True"),
    },
    "text/embedded/itself.py": {
        "a figure is made up": ('figure["says"].format(value)', 'figure["says"].format(7)'),
        "another's name is remembered": ("name = told or name", "name = name or told"),
    },
    "tasks/recall.py": {
        "a refusal is an answer": (
            "any(map(str.isalpha, text)) and not is_refusal(text)",
            "any(map(str.isalpha, text))",
        ),
        "a part of an answer is enough": ("text.strip() == asked.answer", "text.strip() in str(asked.answer)"),
        "a second question stands alone": (
            "_checked(asked, lambda text: text.strip() == asked.answer, *before)",
            "_checked(asked, lambda text: text.strip() == asked.answer)",
        ),
    },
    "runs/figures.py": {
        "rows are tokens": ("saved.config.data.batch_size * shape.context", "saved.config.data.batch_size"),
        "the loss is the last one": ("progress.best_loss if progress.best_loss is not None else", ""),
    },
    "config/resolve.py": {
        "nanochat's documents begin anywhere": ("{**masked, **chosen}", "chosen"),
    },
}
