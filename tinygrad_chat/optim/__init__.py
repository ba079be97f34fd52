"""Optimisers on the flat parameter buffer, gradient clipping and learning-rate schedules."""

from tinygrad_chat.optim.adamw import AdamW
from tinygrad_chat.optim.clipping import clip_gradient
from tinygrad_chat.optim.groups import Group, adamw_groups
from tinygrad_chat.optim.muon import Muon
from tinygrad_chat.optim.optimizer import Optimizer
from tinygrad_chat.optim.schedule import SCHEDULES, Schedule
from tinygrad_chat.optim.sgd import SGD

__all__ = ["SCHEDULES", "SGD", "AdamW", "Group", "Muon", "Optimizer", "Schedule", "adamw_groups", "clip_gradient"]
