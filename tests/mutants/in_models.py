"""Faults in graphs, modules and models."""

from __future__ import annotations

FAULTS = {
    "models/lora.py": {
        "merged weights forget the scale": ("options.lora_scale * (weights", "1.0 * (weights"),
        "adapters that are there are drawn anew": ("adapters | dict(weights)", "dict(weights) | adapters"),
    },
    "models/weights.py": {
        "nothing is frozen beside adapters": ("if not is_trained(entry.role, options)", "if False"),
    },
    "autograd/recompute.py": {
        "what is used twice counts once": ("_computed(gradients[leaf]) + _computed(gradient)", "gradient"),
        "the second time is computed as by default": ("with within(mode):", "if True:"),
    },
    "nn/quantized.py": {
        "a number is rounded down": ("np.rint(part / scales", "np.floor(part / scales"),
        "each layer reads the first one's columns": (
            "out[..., start : start + len(layer.weight)]",
            "out[..., : len(layer.weight)]",
        ),
        "a gradient is silently lost": ("if recording():", "if False:"),
    },
    "autograd/value.py": {
        "divide: wrong sign of the second gradient": ("(1 / y, -(x / y) / y)", "(1 / y, (x / y) / y)"),
        "a leaf used twice gets one gradient": ("parent.grad += d_out * local", "parent.grad = d_out * local"),
        "nodes are swept in another order": ('nodes.sort(key=attrgetter("birth"))', "pass"),
    },
    "autograd/fused.py": {
        "softmax_average: the sum of 1 is forgotten": ("share * (x - out)", "share * x"),
        "inverse_root_mean_square: the count is missing": ("-power(out, 3) / count", "-power(out, 3)"),
    },
    "autograd/sweep.py": {
        "a borrowed gradient is added to in place": ("parent.grad = parent.grad + gradient", "parent.grad += gradient"),
        "a later sweep overwrites a leaf's gradient": (
            "gradient if self.grad is None else self.grad + gradient",
            "gradient",
        ),
        "a released graph can be swept again, for nothing": (
            "node.grad, node.parents = None, RELEASED",
            "node.grad = None",
        ),
        "a gradient may be overwritten that others have": ("                if new:", "                if True:"),
        "a gradient may be overwritten that a kept graph shows": ("if release and node.birth in", "if node.birth in"),
        "a rule that sweeps by itself has lost its seed": ("    _lent.gradient = None  # a rule", "    # a rule"),
        "a gradient that waits is added to one that others have": (
            "own = parent.birth in owned or parent.birth in unshared",
            "own = True",
        ),
        "a gradient is lent for ever": (
            "        try:\n            return rule(d_out)\n        finally:\n            self.gradient = None",
            "        return rule(d_out)",
        ),
        "a gradient that waits for others waits for ever": (
            "            each.finish()\n        pending.clear()",
            "            pass",
        ),
    },
    "nn/parameters.py": {
        "a weight without a gradient keeps the last step's": ("leaf.grad.fill(0)", "pass"),
        "vectors come first": ("item[1].ndim < 2)", "item[1].ndim >= 2)"),
        "a gradient that was there is lost": ("gradient += xp.asarray(tensor.grad, dtype)", "pass"),
        "a loaded weight does not reach what is computed with": (
            "master.dtype)\n        self.refresh_compute_weights()",
            "master.dtype)",
        ),
        "a thread's gradients overwrite each other": (
            "self._views[leaf] += gradient",
            "self._views[leaf][...] = gradient",
        ),
    },
    "nn/residual.py": {
        "the branch before the last is lost": ("self._x, self._branch = self.x, branch", "self._branch = branch"),
    },
    "models/initialisation.py": {
        "GPT-2's weights begin too large": ("GPT2_STD = 0.02", "GPT2_STD = 0.03"),
        "what is written to the stream does not shrink with depth": (
            "GPT2_STD / math.sqrt(2 *",
            "GPT2_STD / math.sqrt(0 *",
        ),
        "nanochat's bound is that of a normal": ("math.sqrt(3 / options.width)", "math.sqrt(1 / options.width)"),
    },
    "backend/captured_by_kind.py": {
        "a kind that comes once is captured": (
            "self._times_before(kind) < EAGER_STEPS",
            "self._times_before(kind) < 0",
        ),
        "a kind that was captured makes room": ("if each not in self._steps), None)", "if True), None)"),
        "any number of kinds is followed": ("if len(self._times) == self._limit:", "if False:"),
        "the kind that came last makes room": (
            "before = self._times.pop(kind, 0)",
            "before = self._times.get(kind, 0)",
        ),
        "capturing is tried again": (
            "self.refused, self._capture = reason_of(error), None",
            "self.refused = reason_of(error)",
        ),
        "a refusal keeps what was captured": ("            self.forget()", "            pass"),
    },
    "models/captured_steps.py": {
        "every column is that of the capture": ("self._end.write(cache.end)", "pass"),
        "rows begin where they began": ("self._starts.write(cache.starts)", "pass"),
        "what rows have kept is that of the last replayed step": (
            "if getattr(cache, name) is not array:  #",
            "if False:  #",
        ),
        "the newest embedding is that of the capture": ("if getattr(column, name) is not array:", "if False:"),
        "a column is filled again and again": ("cache.advance(1)", "pass"),
        "the next step overwrites a result": ("return self._logits.copy()", "return self._logits"),
        "weights that have moved are read where they were": ("weights is not self._weights or ", ""),
        "threads share what they have captured": (" or thread != self._thread", ""),
        "a full context is written over": ("cache.length >= cache.capacity", "False"),
        "the model's own ops are not asked": (" or not current_mode().is_plain", ""),
        "tokens that the device has drawn are not read": (
            "            self._tokens.array[...] = tokens",
            "            pass",
        ),
        "tokens that come from the host are not sent": ("self._tokens.write(narrowed(np.asarray(tokens)))", "pass"),
    },
    "models/gpt.py": {
        "padding is seen": ("cache.starts[:, None] + positions.clip(max=0)", "cache.starts[:, None] * 0"),
        "padding is smeared into a first token": (
            "if in_document is None and cache.has_padding:",
            "if False:",
        ),
        "positions do not go on behind a cache": ("cache.positions(T) if cache else slice(0, T)", "slice(0, T)"),
        "what is computed again forgets its cache": ("if self.recompute and cache is None:", "if self.recompute:"),
        "the context may be overrun by a token": ("seen + T > self.context", "seen + T > self.context + 1"),
        "a document's first token is smeared": ("(in_document > 0)", "(in_document >= 0)"),
        "positions run on through documents": ("in_document = numbers - starts", "in_document = numbers - 0 * starts"),
        "a document's later tokens have lost its start": ("back *= 2", "back *= 3"),
        "a cache forgets where the document began": ("cache.document_start = starts[:, -1:]", "pass"),
        "nothing is dropped from the embedding": ("x0 = drop(embedded)", "x0 = embedded"),
        "the padding of the head is scored": (
            "len(head.weight) != self.vocabulary",
            "len(head.weight) < self.vocabulary",
        ),
        "backout is added": ("self.backout_scale, subtract=True", "self.backout_scale, subtract=False"),
    },
    "models/rotary_scaling.py": {
        "llama3: slow pairs stay as they are": ("(each - slow) / (fast - slow)", "(fast - each) / (fast - slow)"),
        "yarn: the last pair is one too early": ("min(math.ceil(slowest)", "min(math.floor(slowest)"),
    },
    "models/blocks.py": {
        "every layer is turned": ("if rotate is not None and self.has_rotary", "if rotate is not None"),
        "the gate is let through itself": (
            "apply_to_one_input(x, self.gate, self.expand)",
            "apply_to_one_input(x, self.expand, self.gate)",
        ),
        "no layer has a window": ('{"window": self.window, ', '{"window": None, '),
        "keys are not turned": ("rotate(key, self.key_gain)", "key"),
    },
    "models/base.py": {
        "an evaluation does not bend the logits": ("soft_cap=self.soft_cap)", "soft_cap=None)"),
    },
    "models/scalar_gpt.py": {
        "the window is one too long": ("max(0, position + 1 - window)", "max(0, position - window)"),
        "the gain comes before the norm": (
            "multiplied(self.sized(x, size), gain)",
            "self.sized(multiplied(x, gain), size)",
        ),
        "a part's loss has the whole one's weight": ("mean(losses) * (len(losses) / token_count)", "mean(losses)"),
    },
}
