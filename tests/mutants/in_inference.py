"""Faults on the way from a model back to text."""

from __future__ import annotations

FAULTS = {
    "nn/cache.py": {
        "a cleared cache keeps the last embedding": (
            "self.last_embedding: Any = None",
            "self.last_embedding = getattr(self, 'last_embedding', None)",
        ),
        "a cache that has grown is read where it was": ("self.captured.forget()", "pass"),
        "rows that have not joined end captured steps": ("others.captured = None", "pass"),
        "what was held stays behind": ("enlarged[:, :, : self.rows, : self.end] =", "_ ="),
        "a row that leaves takes the last with it": ("if row < last:", "if False:"),
        "newcomers begin with the others": ("newcomers.starts + self.end - newcomers.end", "newcomers.starts * 0"),
        "what is known of a newcomer is its beginning's place": (
            "end - each.shape[2] : end] = each",
            ": each.shape[2]] = each",
        ),
        "rows that move keep their beginnings": ("self.starts + by, end", "self.starts, end"),
        "the newest embedding stays with its row": ("document_start, self.last_embedding):", "document_start,):"),
    },
    "inference/processors.py": {
        "top_k keeps one more": ("< count, likeliest", "<= count, likeliest"),
        "top_p leaves out the token that reaches it": (
            "xp.cumsum(likeliest, axis=-1) - likeliest",
            "xp.cumsum(likeliest, axis=-1)",
        ),
        "min_p compares with 1": ("part * probabilities.max(axis=-1, keepdims=True)", "part"),
        "a penalty makes logits below 0 likelier": ("known * penalty", "known / penalty"),
        "the logits are changed in place": ("logits.copy()", "logits"),
    },
    "inference/sampler.py": {
        "the temperature multiplies": ("below_largest / options.temperature", "below_largest * options.temperature"),
        "of equals the last comes first": (
            'xp.argsort(-below_largest, axis=-1, kind="stable")',
            "xp.argsort(below_largest, axis=-1)[:, ::-1]",
        ),
        "NaN is a token": ("xp.where(xp.isfinite(logits.max(axis=-1)), tokens, NO_TOKEN)", "tokens"),
        "log-probabilities are logits": (
            "below_largest - xp.log(xp.exp(below_largest).sum(axis=-1, keepdims=True))",
            "below_largest",
        ),
        "all rows keep what is likely in one": (
            "keep_min_p(kept, options.min_p)",
            "keep_min_p(kept.ravel(), options.min_p).reshape(kept.shape)",
        ),
        "all rows fall on the first one's number": ("xp.asarray(uniform)[:, None]", "xp.asarray(uniform)[0]"),
    },
    "inference/text_stream.py": {
        "the beginning of a stop string is shown": ("default=0)", "default=0) * 0"),
        "the text ends behind the stop string": ("self._held[: min(found)]", "self._held"),
        "what was held back is lost": (
            'held, self._held = self._held, ""\n        self._half',
            'held, self._held = "", ""\n        self._half',
        ),
        "a call may hold a stop string": ("if not may_stop:", "if False:"),
        "half a character goes on behind a special token": ("if not content:", "if False:"),
    },
    "inference/calls.py": {
        "a call has no end": ("if len(self._call) == LONGEST_CALL", "if False"),
        "a result has no end": ("[:LONGEST_RESULT]", ""),
        "a call begins without a tool": ("if self._tool else frozenset())", "if True else frozenset())"),
        "a call may hold special tokens": ("special - {self._call_end}", "frozenset()"),
    },
    "inference/rows.py": {
        "what came last is read again": ("{newest.tokens: newest} if newest else {}", "{}"),
        "rows are in the order of the prompts": ("return order, array_module", "return sorted(order), array_module"),
        "a batch has no bound": ("(len(batch) + 1) * most > most_tokens", "False"),
        "short prompts are read with long ones": ("most - prompt.new > PASS + prompt.new // 2", "False"),
        "int8 is read in batches": ("0 if self._model.batch_invariant else MAX_TOKENS", "MAX_TOKENS"),
        "padding stands behind a prompt": (
            "[PADDING] * (columns - len(tokens)) + list(tokens)",
            "list(tokens) + [PADDING] * (columns - len(tokens))",
        ),
    },
    "inference/prefixes.py": {
        "what is kept has no bound": ("> self._most_bytes:\n            self", "> 1 << 60:\n            self"),
        "what was used counts as old": ("self._kept[key] = self._kept.pop(key)", "pass"),
        "no token is left to read": ("tokens[:-1]", "tokens"),
        "any beginning fits": ("one[:length] != other[:length]", "one[:0] != other[:0]"),
        "only one neighbour is looked at": ("max(place - 1, 0) : place + 1", "place : place + 1"),
        "what goes on is kept beside its beginning": ("if common == len(self._kept[key].tokens):", "if False:"),
    },
    "inference/engine.py": {
        "a full context goes on from its last token": ("[-max(self.model.context // 2, 1) :]", "[-1:]"),
        "who closes a stream leaves its request": ("request.cancel()", "pass"),
        "an interrupted step leaves its rows": ("self._rows.clear()", "pass"),
        "all waiting requests get a row": ("self._most - len(self._active))", "None)"),
        "a text may be empty": ("forbidden_first=calls.stop_tokens", "forbidden_first=()"),
        "all are drawn as the first is": (
            "alike.setdefault(request.choice, [])",
            "alike.setdefault((), [])",
        ),
        "a tool's result is drawn": ("if request.forced:", "if False:"),
        "alternatives are another's": (
            "_scored(known, row, xp.argsort(-known[row])",
            "_scored(known, row, xp.argsort(-known[0])",
        ),
    },
    "inference/turns.py": {
        "an answer that is stopped is lost": (
            "if any(part.text for part in parts):",
            "if request.finish_reason == 'stop':",
        ),
        "another question of the same words is forgotten": ("if turns and self._is_answered:", "if turns:"),
        "a change that is refused loses a turn": ("            self._turns = turns\n", "            pass\n"),
    },
    "inference/remote.py": {
        "the key is sent in the open": (
            'http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection',
            "http.client.HTTPConnection",
        ),
        "the name in a URL is shown": ("parts.netloc.rpartition('@')[2]", "parts.netloc"),
        "a line has no end": ("response.readline(MAX_BYTES)", "response.readline()"),
        "a refusal has no end": ("refusal = response.read(MAX_BYTES)", "refusal = response.read()"),
        "an answer that is stopped is read on": ("each.shutdown(socket.SHUT_RDWR)", "pass"),
        "an answer that broke off is an answer": (
            'raise UsageError(f"{self.url}: the answer was cut off")',
            "return",
        ),
        "an error in a stream is no error": ("if chunk.error:", "if False:"),
        "all answers are one": ("(chunk.choices or [_Choice()])[:1]", "(chunk.choices or [_Choice()])"),
        "every answer draws the same": ("self._answers += 1", "pass"),
        "what the calculator said is text": ("False, piece.type)", "False, TEXT)"),
    },
    "inference/chat.py": {
        "every answer draws the same": ("self._answers += 1", "pass"),
        "turns go one at a time": ("[1] <= context // 2)", "[1] <= most)"),
        "a refused message leaves turns out": (
            "        if length > most:\n",
            "        if length > most:\n            self._left_out = left_out\n",
        ),
    },
    "inference/generation.py": {
        "BOS is text": ("ends = tokenizer.stop_tokens", "ends = ()"),
        "every sample is the first": ('"sampling", number)', '"sampling", 0)'),
        "a text may be empty": ("() if options.prompt else tokenizer.stop_tokens", "()"),
        "the prompt's BOS is forgotten": (
            "[tokenizer.bos, *tokens] if len(tokens) < model.context else tokens",
            "tokens",
        ),
    },
    "inference/text_model.py": {
        "the prompt is in the text": ("next(pieces)  # the prompt itself", "pass"),
        "a token beyond the vocabulary is let in": (
            "tokens.max() < self.model.vocabulary",
            "tokens.max() <= self.model.vocabulary",
        ),
    },
}
