"""Faults planted in `serving/`."""

from __future__ import annotations

FAULTS = {
    "serving/limits.py": {
        "any name is this machine's": ("host and not _is_this_machine(host)", "False"),
        "pages of any origin may ask": ("if origin is not None and", "if False and"),
        "any key opens": ('not hmac.compare_digest(sent.encode("utf-8", "replace"), key.encode())', "not sent"),
        "a body in chunks has no bound": ("if len(body) > MAX_BODY:", "if False:"),
    },
    "serving/engine_requests.py": {
        "what the model's makers say comes before what is asked": (
            "**served.sampling.settings(), **said}",
            "**said, **served.sampling.settings()}",
        ),
        "what they say plays no part": ("**served.sampling.settings(), ", ""),
    },
    "serving/worker.py": {
        "the queue has no end": ("if self.taken + count > self._places:", "if False:"),
        "an error overtakes what came before": (
            "yield [each for coming in found if not isinstance(coming, Exception) for each in coming]",
            "yield [each for coming in found for each in (() if isinstance(found[-1], Exception) else coming)]",
        ),
    },
    "serving/streams.py": {
        "one piece for each token": (
            "if shown := _events(chunk_of(index, step) for index, step in coming):\n                yield shown",
            "for index, step in coming:\n                yield _events([chunk_of(index, step)])",
        ),
    },
    "serving/model.py": {
        "weights stay in their file": ("np.array(array)", "array"),
        "a newer checkpoint is left": ("if self._options.follow and folder:", "if False:"),
        "a newer checkpoint is taken unasked": ("if self._options.follow and folder:", "if folder:"),
    },
    "serving/connection.py": {
        "who says nothing is waited for": ("elif self._heading is None:", "elif False:"),
        "each byte of a head gives more time": (
            "super().data_received(data)\n",
            "super().data_received(data)\n        self._heading = _cancelled(self._heading)\n",
        ),
        "who does not read is waited for": ("self.transport.abort()", "self._watch_stall()"),
        "who reads slowly is left": ("if self._unsent() < unsent:", "if False:"),
        "only a long answer is watched": ("self.transport.set_write_buffer_limits(0)", "pass"),
    },
}
