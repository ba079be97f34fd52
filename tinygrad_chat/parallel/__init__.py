"""Several ranks that share the work of a training step: each has part of the batch, and all need the whole gradient.

A rank is a thread here; the interface is that of MPI, so that processes and GPUs can take its place.
"""

from tinygrad_chat.parallel.communicator import Communicator
from tinygrad_chat.parallel.shards import Shards, make_shards
from tinygrad_chat.parallel.thread_team import ThreadTeam, use_threads

__all__ = ["Communicator", "Shards", "ThreadTeam", "make_shards", "use_threads"]
