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
}
