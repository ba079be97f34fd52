"""Several ranks that share the work of a training step: each has part of the batch, and all need the whole gradient.

A rank is a thread here; the interface is that of MPI, so that processes and GPUs can take its place.
"""

from tinygrad_chat.parallel.communicator import Communicator
from tinygrad_chat.parallel.data_parallel import DataParallel, make_data_parallel
from tinygrad_chat.parallel.threads import ThreadTeam, use_threads

__all__ = ["Communicator", "DataParallel", "ThreadTeam", "make_data_parallel", "use_threads"]
