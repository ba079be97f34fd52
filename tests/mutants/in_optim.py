"""Faults in the optimisers, the schedules and the clipping."""

from __future__ import annotations

FAULTS = {
    "optim/adamw.py": {
        "the first average's correction is missing": ("learning_rate / (1 - beta_1**steps)", "learning_rate"),
        "the decay does not follow the rate": ("1 - learning_rate * weight_decay", "1 - weight_decay"),
        "gains and biases decay": ("decayed=parameters.matrices.stop", "decayed=parameters.size"),
        "the shares of old and new are swapped": ("rate, 1 - beta_1, 1 - beta_2", "rate, beta_1, 1 - beta_2"),
    },
    "optim/clipping.py": {
        "the gradient is scaled by the limit alone": ("return limit / norm if", "return limit if"),
    },
    "optim/groups.py": {
        "value embeddings have the rate of embeddings": ("0.5 * embedding_lr", "embedding_lr"),
        "a beta of the head's is another group's": ("head_lr, (0.8, 0.96)", "head_lr, (0.8, 0.995)"),
    },
    "optim/muon.py": {
        "the momentum is its rest": ("change *= 1 - momentum", "change *= momentum"),
        "the momentum does not look ahead": ("ahead *= momentum", "pass"),
        "a weight with a step of 0 does not decay": ("step * weight >= 0", "step * weight > 0"),
        "the rate grows with the width, not the height": ("max(1.0, R / K)", "max(1.0, K / R)"),
        "the momentum's warm-up follows the clock": (
            "self.steps if self.steps < MOMENTUM_WARMUP else position",
            "position",
        ),
    },
    "optim/polar_express.py": {
        "a digit of the polar express": ("-2.772484153217685", "-2.773484153217685"),
        "the norm has no margin": ("1.01 * norm", "norm"),
    },
    "optim/schedule.py": {
        "the warm-up ends a step late": ("max(warmup - 1, 0)", "max(warmup, 0)"),
        "the way down ends a step late": ("max(steps - 1 - top, 1)", "max(steps - top, 1)"),
        "nanochat: the way down begins a step late": ("max(steps - step, 0)", "max(steps - step + 1, 0)"),
        "muon's momentum climbs for 300 steps": ("MOMENTUM_WARMUP = 400", "MOMENTUM_WARMUP = 300"),
        "the decay follows a whole cosine": (
            "math.cos(math.pi * min(step, steps)",
            "math.cos(2 * math.pi * min(step, steps)",
        ),
    },
    "optim/sgd.py": {
        "no momentum": ("self.velocity * self.momentum", "self.velocity * 0"),
    },
    "optim/state.py": {
        "all that is loaded is sent to one place": (
            "array_module(array).asarray(state[name], array.dtype)",
            "array_module(next(iter(arrays.values()))).asarray(state[name], array.dtype)",
        ),
        "the state is no copy": ("np.array(to_host(array))", "np.asarray(to_host(array))"),
        "an average of another shape is let in": (
            "name not in state or state[name].shape != array.shape",
            "name not in state",
        ),
    },
}
