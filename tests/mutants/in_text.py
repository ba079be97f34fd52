"""Faults on the way from text to tokens and batches."""

from __future__ import annotations

FAULTS = {
    "text/batches.py": {
        "the last window is never drawn": ("len(tokens) - context, size", "len(tokens) - context - 1, size"),
        "targets are the tokens themselves": ("windows[:, 1:]", "windows[:, :-1]"),
        "the rest of a text is not evaluated": ("if rest:", "if False:"),
        "the last whole window is not evaluated": ("predicted - context + 1, context", "predicted - context, context"),
    },
    "text/packing.py": {
        "the shortest document is cut": ("waiting.pop(fitting)", "waiting.pop(max(fitting, 0))"),
        "the rest of a document is lost": ("rest = (number, cut, stop) if cut < stop else None", "rest = None"),
        "padding counts": ("np.where(is_padding, IGNORED, targets)", "targets"),
        "every epoch has the same order": ('rng(self.seed, "blocks", epoch)', 'rng(self.seed, "blocks")'),
        "a block's rows are in the order of packing": (
            'rng(self.seed, "rows", epoch * len(self._rows) + block).permutation(len(packed))',
            "range(len(packed))",
        ),
    },
    "text/dataset.py": {
        "what is held out is trained on": ("store.tokens[: store.held_out_from]", "store.tokens"),
        "in one's own tokens what is held out is trained on": (
            "tokens[:split], tokens[split:]",
            "tokens, tokens[split:]",
        ),
        "a tenth that is too short passes": ("(context + 1) * HELD_OUT", "context * HELD_OUT"),
        "tokens below 0 pass": ("if tokens.size and tokens.min() < 0:", "if False:"),
    },
    "text/reading.py": {
        "documents of other lengths are the same text": ("length.to_bytes", "(0).to_bytes"),
        "questions without an answer are not counted": ("document.unanswered is not None", "False"),
        "a document is held out by those before it": (
            "self._bytes, hashlib.sha256()\n",
            "self._bytes, self._document\n",
        ),
    },
    "text/writing.py": {
        "documents begin without a BOS": ("spool.write(first.data)", "pass"),
        "each document begins a token late": ("np.cumsum(sizes) - sizes).data", "np.cumsum(sizes) - sizes + 1).data"),
        "a vocabulary of 256 takes two bytes": ("np.min_scalar_type(size - 1)", "np.min_scalar_type(size)"),
        "a chunk is cut in two": ("min(CHUNK, stop - at)", "min(CHUNK - 1, stop - at)"),
        "documents to train on are held out": ("[first : first + CHUNK] == side", "[first : first + CHUNK] != side"),
        "the first token that is held out is trained on": (
            "sum(where=~held_out)",
            "sum(where=~held_out) + 1",
        ),
    },
    "text/encoding_processes.py": {
        "the last to be asked answers first": (
            "yield from _answered(*asked.popleft(), tokenizer)\n        while",
            "yield from _answered(*asked.pop(), tokenizer)\n        while",
        ),
        "what was asked last is lost": ("        while asked:\n", "        while False:\n"),
        "an answer that was cut off counts": ("if len(tokens) == size:", "if True:"),
    },
    "text/corpus_workers.py": {
        "the words of one corpus are those of all": ("words.update(", "words = Counter("),
        "who has died has told all": (
            "if told is None:\n                return None",
            "if told is None:\n                break",
        ),
    },
    "text/corpus_worker.py": {
        "each pass makes it anew": ("documents=lambda any_bytes=False: iter(documents)", "documents=corpus.documents"),
    },
    "text/embedded/arithmetic.py": {
        "sums that tasks ask are trained on": ("== self.held_out:", "in (True, False):"),
    },
    "text/embedded/vocabulary.py": {
        "words that tasks ask are trained on": (" and is_held_out(word) == held_out", ""),
    },
    "text/conversations/conversation.py": {
        "two may speak in a row": ("if role != due:", "if False:"),
        "a message may be empty": ("if not any(part.text for part in self.parts):", "if False:"),
        "a user may call tools": (
            "if self.role != ASSISTANT and any(part.kind != TEXT for part in self.parts):",
            "if False:",
        ),
        "calls are what is said": ("for part in self.parts if part.kind == TEXT)", "for part in self.parts)"),
    },
    "text/conversations/dialects.py": {
        "what Alpaca adds is lost": ('asked += "\\n\\n" + _text(row["input"], "input")', "pass"),
        "the system message of a pair is lost": ("*said, system=system)", "*said)"),
        "a result needs no call": ("if call is None:", "if False:"),
        "results stand behind all calls": (
            "messages[-1][1][call + 1 : call + 1] = parts",
            "messages[-1][1].extend(parts)",
        ),
        "what follows a result is another message": (
            "elif role == ASSISTANT and goes_on and messages[-1][1][-1].kind != TEXT:",
            "elif False:",
        ),
        "a function call is text": ("CALL if name.lower() == FUNCTION_CALL else TEXT", "TEXT"),
        "capitals matter": ("ROLES.get(name.lower()) if", "ROLES.get(name) if"),
    },
    "text/conversations/document.py": {
        "an unanswered question is no part of what is hashed": (
            "if self.unanswered is not None:",
            "if False:",
        ),
        "a conversation needs no answer": ("if not messages or messages[-1].role != ASSISTANT:", "if not messages:"),
    },
    "text/conversations/template.py": {
        "results are trained": (
            "_Piece(part.text, part.kind == CALL, said=True)",
            "_Piece(part.text, True, said=True)",
        ),
        "calls are not trained": ("_Piece(token, kind == CALL)", "_Piece(token, False)"),
        "users' messages are trained": (
            "yield from self._pieces[before]\n                yield _Piece(self._text(message), False",
            "yield from self._pieces[before]\n                yield _Piece(self._text(message), True",
        ),
        "the end of an answer is not learned": ("trained=at < own", "trained=False"),
        "what stands behind the end is learned": ("trained=at < own", "trained=True"),
        "every message is the first": ('before = "question"', 'before = "first"'),
        "what is typed becomes control": (
            'self.tokenizer.encode("".join(str(piece.content) for piece in together))',
            'self.tokenizer.encode("".join(str(piece.content) for piece in together), special=[BOS, *AROUND[USER]])',
        ),
        "a system message is a token shorter": ("return int((self.tokenizer", "return -1 + int((self.tokenizer"),
        "two who speak are encoded together": ("together[-1].said and piece.said", "False"),
        "a question begins a token late": ('found + sizes["question"] - 1 for', 'found + sizes["question"] for'),
    },
    "text/conversations/windows.py": {
        "what others train is trained twice": ("& (places >= window.trained_from)", "& (places >= 0)"),
        "padding counts": ("self.context), IGNORED, np.int64)", "self.context), 0, np.int64)"),
        "one that fits just so is cut": ("if end - start <= context + 1:", "if end - start <= context:"),
        "the end of a long answer is trained, not its beginning": (
            "stop = min(end, start + room - prefix)",
            "stop = end",
        ),
        "no earlier turn is read": ("bisect_left(asked, asked[done] - room // 2)", "done"),
        "a system message may take all of a row": ("of_system <= room // 2 else least", "True else least"),
        "every epoch has the same order": ('rng(self.seed, "rows", epoch)', 'rng(self.seed, "rows")'),
        "the shortest comes next": ("waiting.pop(fitting)", "waiting.pop(0)"),
        "lost questions are not counted": ("NO_QUESTION: start == answered", "NO_QUESTION: False"),
        "lost beginnings are not counted": ("begins < start < answered", "False"),
        "lost ends are not counted": ("NO_END: stop < end", "NO_END: False"),
        "a window without the system message is not counted": ("(NO_SYSTEM,) if prefix < of_system else ()", "()"),
    },
    "text/conversations/jinja.py": {
        "a question behind the system message is the next": ("loop.previtem.role == '{SYSTEM}'", "false"),
        "parts have no special tokens": (
            '{AROUND[kind][0]}{{{{ part.text }}}}{AROUND[kind][1]}"',
            '{{{{ part.text }}}}"',
        ),
    },
    "text/split.py": {
        "a document is held out more often than not": ("* HELD_OUT < 1 << 64", "* HELD_OUT > 1 << 64"),
        "few documents are enough": ("documents >= MIN_DOCUMENTS", "documents >= 1"),
        "one document may tip the scales": (
            "DOCUMENTS if documents >= MIN_DOCUMENTS and even",
            "DOCUMENTS if documents >= MIN_DOCUMENTS",
        ),
    },
    "text/shares.py": {
        "a file of that very name has a share": ("or is_there(path_of(name))", ""),
        "the last source has the rows that others lack": ("rows -= counts[-1]", "pass"),
        "shares need not sum to 1": ("abs(total - 1) > NEARLY_ONE", "False"),
    },
    "text/mixture.py": {
        "shares play no part in what data it is": ("[part.sha256, str(share)]", "[part.sha256]"),
        "every batch has the first rows": ("draw(part, first, stop - first)", "draw(part, 0, stop - first)"),
    },
    "text/hub.py": {
        "a name is not pinned": ("_list_files(name)[0], name.pattern", "None, name.pattern"),
        "all kinds are read": ("return next(filter(None, of_each_kind), [])", "return sum(of_each_kind, [])"),
    },
    "text/inventory.py": {
        "what is in use is removed": ("if in_use(store.folder):", "if False:"),
        "the last used stands last": ("each.last_use, reverse=True", "each.last_use"),
    },
    "text/token_store.py": {
        "a file that is too long is opened": ("st_size != count * dtype.itemsize", "st_size < count * dtype.itemsize"),
        "edited metadata pass": (
            'found.pop("checksum", None) != checksum(found)',
            'found.pop("checksum", None) is None',
        ),
        "a store under another's name is opened": (
            "or key != folder.name",
            "or False",
        ),
        "a store is not forced to the disk": ("file.flush()\n    os.fsync(file.fileno())", "file.flush()"),
    },
    "text/token_cache.py": {
        "a file changed just before it was read proves itself": ("> now - COARSEST_CLOCK", "> now + COARSEST_CLOCK"),
        "the size alone tells a changed file": (
            "(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)",
            "(status.st_size,)",
        ),
        "stores in use are removed": ("number >= MAX_STORES) and not in_use(folder)", "number >= MAX_STORES)"),
        "the newest store is removed first": ("st_mtime_ns, reverse=True)", "st_mtime_ns)"),
    },
    "text/learning.py": {
        "documents that are held out are learned from": ("(not out for out in", "(True for out in"),
        "the end that is held out is learned from": ("end_from(contents.bytes)", "contents.bytes"),
        "conversations that are held out are learned from": (
            "itertools.islice(documents, documents_before_end(lengths))",
            "documents",
        ),
    },
    "text/tokenizers/characters.py": {
        "the last character is unknown": ("tokens[tokens == self.bos] = 0", "tokens[tokens >= self.bos - 1] = 0"),
        "every character is a byte": ("[len(character.encode()) for", "[1 for"),
    },
    "text/tokenizers/tokenizer.py": {
        "half a character at the end is lost": ('decoder.decode(b"", final=True)', '""'),
    },
    "text/tokenizers/bytes.py": {
        "BOS has a byte": ("[1] * 256 + [0]", "[1] * 257"),
    },
    "text/tokenizers/numbers.py": {
        "a number over two pieces is two": ("text.split()[-1]\n", '""\n'),
        "the first number beyond passes": ("int(digits) < self.size", "int(digits) <= self.size"),
    },
    "text/tokenizers/splitting.py": {
        "what may still be a contraction is certain": ("length < HEAD or", "length < 1 or"),
        "blanks at the end are certain": (" or pieces[number - 1].isspace()", ""),
        "letters beyond the first plane are signs": (""""L": "\\u05d0",""", ""),
        "a part is given twice": ("open_piece[begun:-HEAD]", "open_piece[:-HEAD]"),
    },
    "text/tokenizers/merging.py": {
        "the rightmost of equals is merged": (
            "at = ranks.index(rank)",
            "at = len(ranks) - 1 - ranks[::-1].index(rank)",
        ),
        "a heap's stale entry is merged": (
            "if right == end or rank_of.get((tokens[at], tokens[right])) != rank:",
            "if right == end or tokens[at] < 0 or tokens[right] < 0:",
        ),
        "what crosses the end changes nothing": ("if crosses and merge(", "if False and merge("),
    },
    "text/tokenizers/bpe_training.py": {
        "counts that have fallen are taken as they were": ("if number != -negative:", "if not number:"),
        "a new pair is counted once a word": ("new_pairs[pair] += number", "new_pairs[pair] = number"),
        "what stood before a pair stays counted": (
            "pair_counts[(right if before == made else before) + left] -= number",
            "pair_counts[(right if before == made else before) + left] -= 0",
        ),
    },
    "text/tokenizers/bpe.py": {
        "special tokens have bytes": ('[*tokens, *[b""] * len(special)]', "[*tokens, *map(str.encode, special)]"),
        "a piece that is a token is merged all the same": (
            "self._whole = ids if ignore_merges else {}",
            "self._whole = {}",
        ),
    },
    "seeds.py": {
        "the position plays no part": ("PURPOSES.index(purpose), position, ", "PURPOSES.index(purpose), 0, "),
        "all purposes draw the same": ("PURPOSES.index(purpose), position, ", "0, position, "),
    },
}
