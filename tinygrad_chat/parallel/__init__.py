"""Data parallelism: several ranks share a training step. Each has part of the batch, and all need the whole gradient.

A rank is a thread of this process, or a separate process on this machine or another. The interface is MPI's.

communicator.py     the interface: collective operations
threads.py          ranks that are threads
mpi.py              ranks that are processes, connected by MPI
window.py           reduce-scatter and all-gather in memory shared by the ranks of one machine
device.py           ranks with a GPU each, connected by NCCL
data_parallel.py    a batch's gradient, computed by several threads
sharding.py         each rank's share of the parameters and of the optimiser state
buckets.py          send gradients to other ranks during the backward pass
member.py           the requests that rank 0 sends to the others
joining.py          how a process becomes a rank
starting.py         how ranks are started
process_manager.py  how ranks started by torchrun find each other
bandwidth.py        measure how fast ranks exchange a gradient
heartbeat.py        how ranks notice that another one has died
monitor.py          rank 0's side of the heartbeats
shared_memory.py    remove shared memory that ranks would leave behind
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
