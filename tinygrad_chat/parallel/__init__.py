"""Several ranks that share the work of a training step: each has part of the batch, and all need the whole gradient.

A rank is a thread of this process, or a process of its own, on this machine or another: the interface is MPI's.

communicator.py     what a rank asks of the others
threads.py          ranks that are threads
mpi.py              ranks that are processes
window.py           sums and copies in memory that the ranks of one machine share
device.py           ranks whose arrays lie on a GPU each
data_parallel.py    a batch's gradient by several threads
sharding.py         each rank's share of the parameters, and of an optimiser's state
buckets.py          gradients on their way to other ranks during the backward sweep
member.py           what rank 0 asks of the others
joining.py          how a process becomes a rank
starting.py         how ranks are started
process_manager.py  how ranks that torchrun has started find each other
bandwidth.py        how fast ranks exchange a gradient
heartbeat.py        how ranks notice that another one has ended
monitor.py          rank 0's side of the heartbeats
shared_memory.py    what ranks must not leave behind when they end
"""

from tinygrad_chat.parallel.communicator import FAREWELL, Communicator
from tinygrad_chat.parallel.data_parallel import DataParallel, make_data_parallel
from tinygrad_chat.parallel.sharding import ParameterShare, cut, even_shares, part_of_state, whole_state
from tinygrad_chat.parallel.threads import ThreadTeam, use_threads

__all__ = [
    "FAREWELL",
    "Communicator",
    "DataParallel",
    "ParameterShare",
    "ThreadTeam",
    "cut",
    "even_shares",
    "make_data_parallel",
    "part_of_state",
    "use_threads",
    "whole_state",
]
