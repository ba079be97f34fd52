"""Faults in what becomes of other programs' models here, and of ours there."""

from __future__ import annotations

FAULTS = {
    "interchange/family.py": {
        "queries, keys and values are all the queries": ("starts[name] = rows.get(theirs, 0)", "starts[name] = 0"),
        "what the family does not know is passed over": ("if missing or unknown:", "if missing:"),
        "rotary pairs keep their sense": (
            "swapped(name, array, options) if self.swapped else array\n            array = array.T",
            "array\n            array = array.T",
        ),
    },
    "interchange/families.py": {
        "gate and what it lets through change places": (
            '"feed_forward.gate": "mlp.gate_proj",\n    "feed_forward.expand": "mlp.up_proj"',
            '"feed_forward.gate": "mlp.up_proj",\n    "feed_forward.expand": "mlp.gate_proj"',
        ),
    },
    "interchange/family_configs.py": {
        "a window of some layers is one of all": ("if len(set(kinds)) > 1:", "if False:"),
        "biases of attention alone are passed over": ("c.attention_bias, (c.mlp_bias,)", "c.attention_bias, (0, 1)"),
    },
    "interchange/rope.py": {
        "a scaling that we do not have is passed over": ('if kind == "default":', 'if kind in ("default", "dynamic"):'),
    },
    "interchange/gguf.py": {
        "one array may lie over another": ("if offset != due or", "if"),
        "an array may reach beyond the file": ("or begin + due + length > len(self._content):", "or False:"),
        "a key may stand there twice": ("if key in metadata:", "if False:"),
        "lists of texts have no bound": ("if self._texts > MAX_TEXTS:", "if False:"),
        "a text may be longer than what is left": ("if length > end - at:", "if False:"),
        "one part of several is taken for the whole": ("not in (0, 1):", "not in (0, 1, 3):"),
    },
    "interchange/gguf_blocks.py": {
        "the high bits of minima are those of scales": (
            "(third >> 4) | (second >> 6 << 4)",
            "(third >> 4) | (first >> 6 << 4)",
        ),
        "nibbles come in pairs": (
            "packed[..., None, :] >> np.array(list(shifts)",
            "packed[..., None, :] << np.array(list(shifts)",
        ),
        "only the first part is unpacked": ("range(0, len(blocks), PART)", "range(0, min(PART, len(blocks)), PART)"),
        "bfloat16 is cut, not rounded": ("bits + 0x7FFF + (bits >> 16 & 1)", "bits"),
    },
    "interchange/gguf_model.py": {
        "rows stay as llama.cpp turns them": ("if interleaved and name", "if not interleaved and name"),
        "values are where queries are": ("array[at * rows : (at + 1) * rows]", "array[: rows]"),
        "any factors are Llama 3's": ("not np.allclose(np.asarray(there), planned, rtol=1e-3)", "False"),
    },
    "interchange/sampling.py": {
        "what cannot be counts": ("        return Sampling()\n", "        pass\n"),
        "drawing is never turned off": ('if content.get("do_sample") is False:', "if False:"),
    },
    "interchange/huggingface_files.py": {
        "a shard may be anywhere": ("if not SHARD.fullmatch(shard):", "if False:"),
        "an index may lie about its files": ("if listed != found.keys():", "if False:"),
    },
    "text/conversations/probing.py": {
        "a template may do more": ("if not keeps_to_it or", "if"),
        "what comes before the system is lost": ("system=before,", "system=first,"),
        "the next question is asked as the first": ("question=question,", "question=answer,"),
        "blanks are kept": ("stripped=_stripped(texts[7], texts[8])", "stripped=()"),
    },
    "text/tokenizers/gguf.py": {
        "a special token stands for text": ('"special": bool(kinds[number] != ADDED)', '"special": False'),
        "whatever is split as Qwen's is normalised": ("settings.get(NORMALIZE, pattern ==", "(pattern =="),
        "Llama's pieces are merged": ('"ignore_merges": pattern == "llama3"', '"ignore_merges": False'),
    },
}
