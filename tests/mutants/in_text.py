"""Faults on the way from text to tokens and batches, and from a model back to text."""

from __future__ import annotations

FAULTS = {
    "text/batches.py": {
        "the last window is never drawn": ("len(tokens) - context, size", "len(tokens) - context - 1, size"),
        "targets are the tokens themselves": ("windows[:, 1:]", "windows[:, :-1]"),
        "the rest of a text is not evaluated": ("if rest:", "if False:"),
        "the last whole window is not evaluated": ("predicted - context + 1, context", "predicted - context, context"),
    },
    "text/dataset.py": {
        "what is held out is trained on": ("return tokens[:split], tokens[split:]", "return tokens, tokens[split:]"),
        "a tenth that is too short passes": ("(context + 1) * HELD_OUT", "context * HELD_OUT"),
        "tokens below 0 pass": ("if tokens.size and tokens.min() < 0:", "if False:"),
    },
    "text/reading.py": {
        "documents begin without a BOS": ("        file.write(first)\n        count += 1\n", ""),
        "each document begins a token late": (
            "starts.append(count)\n        file.write(first)\n        count += 1",
            "file.write(first)\n        count += 1\n        starts.append(count)",
        ),
        "documents of other lengths are the same text": ("(self._bytes - start).to_bytes", "(0).to_bytes"),
        "a vocabulary of 256 takes two bytes": ("np.min_scalar_type(size - 1)", "np.min_scalar_type(size)"),
        "a chunk of code points is cut in two": ("file.read(CHUNK * 4)", "file.read(CHUNK)"),
    },
    "text/token_store.py": {
        "a file that is too long is opened": ("st_size != count * dtype.itemsize", "st_size < count * dtype.itemsize"),
        "edited metadata pass": (
            'found.pop("checksum", None) != checksum(found)',
            'found.pop("checksum", None) is None',
        ),
        "a store under another's name is opened": ("store_key(contents, tokenizer) != folder.name", "False"),
        "a store is not forced to the disk": ("file.flush()\n    os.fsync(file.fileno())", "file.flush()"),
    },
    "text/token_cache.py": {
        "a file changed just before it was read proves itself": ("> now - COARSEST_CLOCK", "> now + COARSEST_CLOCK"),
        "the size alone tells a changed file": (
            "(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)",
            "(status.st_size,)",
        ),
        "stores in use are removed": ("number >= MOST_STORES) and not in_use(folder)", "number >= MOST_STORES)"),
        "the newest store is removed first": ("st_mtime_ns, reverse=True)", "st_mtime_ns)"),
    },
    "text/tokenizers/characters.py": {
        "the last character is unknown": ("tokens[tokens == self.bos] = 0", "tokens[tokens >= self.bos - 1] = 0"),
        "every character is a byte": ("[len(character.encode()) for", "[1 for"),
    },
    "text/tokenizers/bytes.py": {
        "half a character at the end is lost": ('decoder.decode(b"", final=True)', '""'),
        "BOS has a byte": ("[1] * 256 + [0]", "[1] * 257"),
    },
    "text/tokenizers/numbers.py": {
        "a number over two pieces is two": ("text.split()[-1]\n", '""\n'),
        "the first number beyond passes": ("int(digits) < self.size", "int(digits) <= self.size"),
    },
    "inference/sampler.py": {
        "the temperature multiplies": ("below_largest[order] / temperature", "below_largest[order] * temperature"),
        "top_k keeps one more": ("likeliest[top_k:] = 0", "likeliest[top_k + 1 :] = 0"),
        "top_p leaves out the token that reaches it": ("np.cumsum(likeliest) - likeliest", "np.cumsum(likeliest)"),
        "of equals the last comes first": (
            'np.argsort(-below_largest, kind="stable")',
            "np.argsort(below_largest)[::-1]",
        ),
        "NaN is a token": ("if not np.isfinite(np.max(logits)):", "if False:"),
    },
    "inference/generation.py": {
        "a full context goes on from its last token": ("window[-max(model.context // 2, 1) :]", "window[-1:]"),
        "a full context leaves its cache": ("cache.clear()", "pass"),
        "BOS is text": (
            "if token == tokenizer.bos:\n                return",
            "if token == tokenizer.bos:\n                continue",
        ),
        "every sample is the first": ('"sampling", number)', '"sampling", 0)'),
        "a text may be empty": ("not_first=None if options.prompt else tokenizer.bos", "not_first=None"),
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
    "seeds.py": {
        "the position plays no part": ("PURPOSES.index(purpose), position)", "PURPOSES.index(purpose), 0)"),
        "all purposes draw the same": ("PURPOSES.index(purpose), position)", "0, position)"),
    },
}
