"""Optimisers on the flat parameter buffer, gradient clipping and learning-rate schedules."""

from tinygrad_chat.optim.adamw import AdamW
from tinygrad_chat.optim.clipping import clip_gradient
from tinygrad_chat.optim.optimizer import Optimizer
from tinygrad_chat.optim.schedule import SCHEDULES, Schedule
from tinygrad_chat.optim.sgd import SGD

__all__ = ["SCHEDULES", "SGD", "AdamW", "Optimizer", "Schedule", "clip_gradient"]
